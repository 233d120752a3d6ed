//! A small language to play with placement from text: describe a cluster, ask for a plan, let it be
//! carried out. One command a line; `#` starts a comment. What is not given has its default, and a
//! command on a node or range that exists changes only what it names.
//!
//! ```text
//! policy replicas_count=3 split_bytes=256MiB    every field of `Policy`, by its name
//! node 1 zone=a silent=45s capacity=1TiB used=10GiB draining
//!                                     also: staying, writes=BYTES/s, requests=N/s
//! forget node 1                       also: forget range 7
//! spine voters=1,2,3 learners=4~50 leader=1
//!                                     `~50`: 50 entries behind; also: changing. Nodes not named
//!                                     are learners. Without this command all nodes vote, up to
//!                                     the limit; nodes that come after the first plan are
//!                                     learners. The lowest living voter leads unless told
//! range 7 [b,c) replicas=1,2~50,3L leader=1 bytes=300MiB keys=1000
//!                                     `L`: a learner; the first replica leads unless told;
//!                                     leader=none. Also: writes=N/s, write_bytes=BYTES/s,
//!                                     reads=N/s, load_key=KEY, size_key=KEY, quiet=TIME,
//!                                     age=TIME, changing
//! freeze 4                            learners on node 4 never catch up; thaw 4 ends it
//! hot m                               key m has all the load of its range
//! pass 10min                          time goes by
//! plan                                the next steps with rule and reason, and the complaints
//! run rounds=100                      plans and carries out until nothing is left to do
//! check add_learner range=7 node=4    whether the step may be taken; steps as `plan` prints them
//! show                                nodes and ranges as they are
//! ```
//!
//! Keys are written as they are, other bytes as `\xNN`; `[a,)` is a span without an end.

mod argument;
mod set;
mod show;

use std::fmt;

use crate::check::check;
use crate::plan::{Plan, Step};
use crate::policy::Policy;
use crate::rehearse::Rehearsal;
use crate::solve::plan;
use crate::survey::{Replica, Survey};
use crate::units::parse_millis;
use argument::Arguments;

/// Rounds after which `run` gives up when not told.
const ROUNDS_MAX: usize = 1_000;

/// What is wrong with a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl Error {
    fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

/// Plays scripts, line by line.
#[derive(Clone, Debug)]
pub struct Player {
    rehearsal: Rehearsal,
    /// The spine's voters are chosen: nodes that come later are learners of it.
    is_spine_set: bool,
}

impl Default for Player {
    fn default() -> Self {
        let rehearsal = Rehearsal::new(Survey::default(), Policy::default());
        Self { rehearsal, is_spine_set: false }
    }
}

impl Player {
    /// A player of this cluster: what `plan` and `run` do starts from it.
    pub fn new(survey: Survey, policy: Policy) -> Self {
        Self { rehearsal: Rehearsal::new(survey, policy), is_spine_set: true }
    }

    /// The cluster as it is.
    pub fn survey(&self) -> &Survey {
        &self.rehearsal.survey
    }

    /// Plays one command and answers what it prints, with a line end if it is anything.
    ///
    /// # Errors
    /// The command is unknown or does not fit the cluster. It has no effect then.
    pub fn play(&mut self, line: &str) -> Result<String, Error> {
        let command = line.split('#').next().unwrap_or_default();
        let mut words = command.split_whitespace();
        let Some(name) = words.next() else { return Ok(String::new()) };
        let mut words = Arguments::new(words.collect());
        let mut next = self.clone();
        let answer = next.obey(name, &mut words)?;
        words.finish()?;
        *self = next;
        Ok(answer)
    }

    fn obey(&mut self, name: &str, words: &mut Arguments<'_>) -> Result<String, Error> {
        let Rehearsal { survey, policy, frozen, hot_keys, .. } = &mut self.rehearsal;
        match name {
            "policy" => set::policy(policy, words)?,
            "node" => set::node(survey, words)?,
            "range" => set::range(survey, words)?,
            "spine" => {
                set::spine(survey, words)?;
                self.is_spine_set = true;
            }
            "forget" => set::forget(survey, words)?,
            "freeze" => frozen.extend(words.rest_numbers()?),
            "thaw" => words.rest_numbers()?.iter().for_each(|node| _ = frozen.remove(node)),
            "hot" => hot_keys.extend(words.rest_keys()?),
            "pass" => {
                let passed_ms = words.next_parsed("a time", parse_millis)?;
                self.rehearsal.pass(passed_ms);
            }
            "plan" => return Ok(self.plan()),
            "run" => return self.run(words),
            "check" => return self.check(words),
            "show" => {
                self.complete_spine();
                return Ok(show::survey(&self.rehearsal.survey));
            }
            _ => return Err(Error::new(format!("unknown command {name}"))),
        }
        Ok(String::new())
    }

    fn plan(&mut self) -> String {
        self.start();
        show::plan(&plan(&self.rehearsal.survey, &self.rehearsal.policy))
    }

    fn run(&mut self, words: &mut Arguments<'_>) -> Result<String, Error> {
        let rounds_max = words.optional("rounds", |text| text.parse().ok())?.unwrap_or(ROUNDS_MAX);
        self.start();
        let mut text = String::new();
        let on_round = |round: usize, _: &Survey, plan: &Plan| {
            text.push_str(&show::round(round, plan));
        };
        let outcome = self.rehearsal.run(rounds_max, on_round).map_err(|(step, refusal)| {
            Error::new(format!("planned step refused: {step}: {refusal}"))
        })?;
        let end = if outcome.is_settled { "settled" } else { "not settled" };
        text.push_str(&format!("{end} after {} rounds\n", outcome.rounds_count));
        let last = plan(&self.rehearsal.survey, &self.rehearsal.policy);
        text.push_str(&show::complaints(&last));
        Ok(text)
    }

    fn check(&mut self, words: &mut Arguments<'_>) -> Result<String, Error> {
        let step = step(words)?;
        self.start();
        Ok(match check(&self.rehearsal.survey, &self.rehearsal.policy, &step) {
            Ok(()) => "ok\n".to_owned(),
            Err(refusal) => format!("refused: {refusal}\n"),
        })
    }

    fn start(&mut self) {
        self.complete_spine();
        self.is_spine_set = true;
    }

    /// Every node has a copy of the spine, as in a cluster.
    fn complete_spine(&mut self) {
        let Rehearsal { survey, policy, .. } = &mut self.rehearsal;
        for node in survey.nodes.keys() {
            if survey.spine.replica(*node).is_some() {
                continue;
            }
            let voters_count = survey.spine.voters().count();
            let votes = !self.is_spine_set && voters_count < policy.spine_voters_max;
            let replica = if votes { Replica::voter(*node) } else { Replica::learner(*node) };
            survey.spine.replicas.push(replica);
        }
        if survey.spine.leader.is_none() {
            let living = survey.spine.voters().filter(|voter| survey.is_living(policy, voter.node));
            survey.spine.leader = living.map(|voter| voter.node).min();
        }
    }
}

/// A step as `Step` prints it.
fn step(words: &mut Arguments<'_>) -> Result<Step, Error> {
    let name = words.next_parsed("a step", |text| Some(text.to_owned()))?;
    Ok(match name.as_str() {
        "add_learner" => {
            Step::AddLearner { range: words.number("range")?, node: words.number("node")? }
        }
        "promote" => Step::Promote { range: words.number("range")?, node: words.number("node")? },
        "remove_replica" => {
            Step::RemoveReplica { range: words.number("range")?, node: words.number("node")? }
        }
        "transfer_leader" => {
            Step::TransferLeader { range: words.number("range")?, to: words.number("to")? }
        }
        "split" => Step::Split { range: words.number("range")?, key: words.key("key")? },
        "merge" => Step::Merge { left: words.number("left")?, right: words.number("right")? },
        "add_spine_voter" => Step::AddSpineVoter { node: words.number("node")? },
        "demote_spine_voter" => Step::DemoteSpineVoter { node: words.number("node")? },
        "move_spine_leader" => Step::MoveSpineLeader { to: words.number("to")? },
        _ => return Err(Error::new(format!("unknown step {name}"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_command_says_why_and_has_no_effect() {
        let mut player = Player::default();
        player.play("node 1 zone=a").expect("a good command");
        let before = player.survey().clone();
        let wrong = [
            ("fly", "unknown command fly"),
            ("node", "a node id is missing"),
            ("node x", "a node id expected, not x"),
            ("node 2 zone=b colour=red", "not understood: colour=red"),
            ("node 2 silent=soon", "silent cannot be soon"),
            ("range 1 [a,b) replicas=1,1X", "replicas cannot be 1,1X"),
            ("range 1 [a,b", "a span such as [a,b) expected, not [a,b"),
            ("range 9 bytes=1", "range 9 needs a span"),
            ("policy replicas=3", "not understood: replicas=3"),
            ("check add_learner range=1", "node is missing"),
            ("forget node 9", "there is no node 9"),
        ];
        for (line, why) in wrong {
            assert_eq!(player.play(line), Err(Error::new(why)), "{line}");
            assert_eq!(player.survey(), &before, "{line}");
        }
    }

    #[test]
    fn steps_are_read_as_they_are_printed() {
        let steps = [
            Step::AddLearner { range: 7, node: 4 },
            Step::Promote { range: 7, node: 4 },
            Step::RemoveReplica { range: 7, node: 4 },
            Step::TransferLeader { range: 7, to: 4 },
            Step::Split { range: 7, key: b"a,\x00b".to_vec() },
            Step::Merge { left: 7, right: 8 },
            Step::AddSpineVoter { node: 4 },
            Step::DemoteSpineVoter { node: 4 },
            Step::MoveSpineLeader { to: 4 },
        ];
        for wanted in steps {
            let text = wanted.to_string();
            let mut words = Arguments::new(text.split_whitespace().collect());
            assert_eq!(step(&mut words), Ok(wanted));
            assert_eq!(words.finish(), Ok(()));
        }
    }
}
