//! What the user should know although the node starts. Owns the words; the caller logs each
//! notice once, as a warning.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// A remark about the configuration. `setting` is a flag with its dashes, or a key of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// All other flags and variables were ignored.
    FileOnly { path: PathBuf },
    /// A flag of etcd that has nothing to act on here.
    NoMeaning { setting: String, why: &'static str },
    /// A flag of long ago that etcd drops, too.
    Ignored { setting: String },
    /// A variable that begins like ours and belongs to no flag.
    UnknownVariable { name: String },
    /// The variable of a flag, without a value.
    EmptyVariable { name: String },
    /// A key of the configuration file that belongs to no flag.
    UnknownKey { key: String },
    /// `--metrics` has a word that is neither `basic` nor `extensive`.
    UnknownMetrics { word: String },
    /// The node has the name that every node has by default.
    DefaultName,
    /// A duration below the smallest that is served.
    Raised { setting: &'static str, to: Duration },
    /// A size above what is known to work well.
    AboveRecommended { setting: &'static str, given_bytes: u64, recommended_bytes: u64 },
    /// Acknowledged writes can be lost.
    NoFlushes,
    /// A cipher suite that was asked for and is not there.
    CipherSuite { name: &'static str },
    /// A certificate is given, so none is generated.
    AutoTlsUnused { side: &'static str },
    /// An address without TLS, although there are certificates.
    CertUnused { side: &'static str, url: String },
    /// An address without TLS, although certificates are to be asked for.
    CertAuthUnused { side: &'static str, url: String },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::FileOnly { path } => write!(
                f,
                "configuration comes from {}; other flags and environment variables are ignored",
                path.display()
            ),
            Notice::NoMeaning { setting, why } => write!(f, "{setting} has no effect: {why}"),
            Notice::Ignored { setting } => {
                write!(f, "{setting} is no longer a setting of etcd and is ignored")
            }
            Notice::UnknownVariable { name } => {
                write!(f, "unrecognized environment variable {name}")
            }
            Notice::EmptyVariable { name } => {
                write!(f, "environment variable {name} is empty and has no effect")
            }
            Notice::UnknownKey { key } => {
                write!(f, "unrecognized key {key:?} in the configuration file has no effect")
            }
            Notice::UnknownMetrics { word } => {
                write!(f, "unrecognized value {word:?} of --metrics is taken for \"basic\"")
            }
            Notice::DefaultName => {
                f.write_str("this node has the default name; set --name to tell members apart")
            }
            Notice::Raised { setting, to } => {
                write!(f, "{setting} is below the minimum and raised to {to:?}")
            }
            Notice::AboveRecommended { setting, given_bytes, recommended_bytes } => write!(
                f,
                "{setting} of {given_bytes} bytes is above the recommended {recommended_bytes}"
            ),
            Notice::NoFlushes => {
                f.write_str("flushes are off: a crash of the machine loses acknowledged writes")
            }
            Notice::CipherSuite { name } => {
                write!(f, "the cipher suite {name} cannot be chosen and is left out")
            }
            Notice::AutoTlsUnused { side } => {
                write!(f, "ignoring {side} auto TLS since certs given")
            }
            Notice::CertUnused { side, url } => write!(
                f,
                "scheme is http or unix while key and cert files are present; ignoring key and \
                 cert files for the {side} URL {url}"
            ),
            Notice::CertAuthUnused { side, url } => write!(
                f,
                "scheme is http or unix while client certificates are to be asked for; ignoring \
                 that for the {side} URL {url}"
            ),
        }
    }
}
