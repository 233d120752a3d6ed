//! When which class of faults is carried out. All of it is drawn from the seed; which node is
//! meant by "the leader" depends on the run.

use std::time::Duration;

use crate::process::fault::Class;
use crate::sim::chance::Chance;

/// Before the first fault the cluster is seen at peace.
const PEACE: Duration = Duration::from_secs(3);
/// Shortest and longest fault, in milliseconds.
const LASTS_MS: (u64, u64) = (500, 5_000);
/// Mean pause between two faults of a lane, in microseconds.
const GAP_MEAN_US: u64 = 1_000_000;

/// A fault that is to be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Which.
    pub class: Class,
    /// When, from the beginning of the load. Later if the lane is still busy.
    pub at: Duration,
    /// For how long.
    pub lasts: Duration,
}

/// Draws `lanes` sequences of faults that go on beside each other. Every class comes up once
/// before any comes up again, as far as there is time.
pub fn draw(
    classes: &[Class],
    lanes: usize,
    length: Duration,
    chance: &mut Chance,
) -> Vec<Vec<Planned>> {
    let mut lanes: Vec<Vec<Planned>> = vec![Vec::new(); lanes];
    if classes.is_empty() || lanes.is_empty() {
        return lanes;
    }
    let mut deck: Vec<Class> = Vec::new();
    let mut free: Vec<Duration> =
        lanes.iter().map(|_| PEACE + Duration::from_millis(chance.below(1_000))).collect();
    loop {
        let lane = (0..free.len()).min_by_key(|lane| free[*lane]).expect("there are lanes");
        if free[lane] >= length {
            return lanes;
        }
        if deck.is_empty() {
            deck = classes.to_vec();
        }
        let card = usize::try_from(chance.below(deck.len() as u64)).expect("a short list");
        let class = deck.swap_remove(card);
        let lasts = Duration::from_millis(chance.between(LASTS_MS.0, LASTS_MS.1));
        lanes[lane].push(Planned { class, at: free[lane], lasts });
        free[lane] += lasts + Duration::from_micros(300_000 + chance.wait(GAP_MEAN_US));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_repeats_by_seed_and_knows_every_class() {
        let classes = [Class::Kill, Class::Pause, Class::Isolate];
        let draw = |seed| draw(&classes, 2, Duration::from_secs(60), &mut Chance::new(seed));
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        let all: Vec<Class> = draw(1).concat().iter().map(|planned| planned.class).collect();
        assert!(all.len() > 10, "{all:?}");
        assert!(classes.iter().all(|class| all.contains(class)));
        for lane in draw(3) {
            assert!(lane.windows(2).all(|pair| pair[0].at + pair[0].lasts < pair[1].at));
        }
    }
}
