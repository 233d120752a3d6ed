//! The numbers that name things across machines, each with its own type so that one cannot be
//! passed for another. Owns how they are printed; never hands out new ones.

use std::fmt;

/// A node of the cluster, which etcd's API calls a member. Zero means "none" on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

/// A Raft group: the spine, or the group of one range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u64);

/// A client's lease. Zero means "no lease" on the wire; clients may choose any other number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

impl GroupId {
    /// The root group, whose log is the global order.
    pub const SPINE: GroupId = GroupId(0);
}

/// Lower-case hexadecimal without padding, as etcd prints members.
impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, f)
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Lower-case hexadecimal without padding. A negative id keeps its sign, as in Go's `%x`; Rust's
/// own hexadecimal would show the two's complement.
impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad_integral(self.0 >= 0, "0x", &format!("{:x}", self.0.unsigned_abs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_print_as_etcd_prints_members() {
        assert_eq!(NodeId(0x8e9e_05c5_2164_694d).to_string(), "8e9e05c52164694d");
        assert_eq!(NodeId(10).to_string(), "a");
    }

    #[test]
    fn leases_print_as_go_prints_signed_hexadecimal() {
        assert_eq!(LeaseId(0x694d_7a1b_c2d3_e4f0).to_string(), "694d7a1bc2d3e4f0");
        assert_eq!(LeaseId(-255).to_string(), "-ff");
        assert_eq!(LeaseId(i64::MIN).to_string(), "-8000000000000000");
        assert_eq!(format!("{:016}", LeaseId(0x7b)), "000000000000007b");
    }

    #[test]
    fn the_spine_is_the_first_group() {
        assert_eq!(GroupId::SPINE.to_string(), "0");
        assert!(GroupId::SPINE < GroupId(1));
    }
}
