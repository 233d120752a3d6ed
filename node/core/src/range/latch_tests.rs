//! Latches against a plain model: a request may run when no earlier, unreleased one conflicts.

use super::*;

fn key(name: &str) -> Point {
    Point::Key(Bytes::copy_from_slice(name.as_bytes()))
}

fn points(list: &[(&str, Mode)]) -> Footprint {
    Footprint {
        points: list.iter().map(|(name, mode)| (key(name), *mode)).collect(),
        spans: Vec::new(),
    }
}

fn span(from: &str, to: &str, mode: Mode) -> Footprint {
    let span = Span::from_request(
        Bytes::copy_from_slice(from.as_bytes()),
        Bytes::copy_from_slice(to.as_bytes()),
    );
    Footprint { points: Vec::new(), spans: vec![(span, mode)] }
}

fn released(latches: &mut Latches, guard: Guard) -> Vec<Guard> {
    let mut granted = Vec::new();
    latches.release(guard, &mut granted);
    granted
}

#[test]
fn blind_writes_share_a_key_and_a_write_waits_for_all_of_them() {
    let mut latches = Latches::default();
    let (a, is_a) = latches.acquire(points(&[("k", Mode::Blind)]));
    let (b, is_b) = latches.acquire(points(&[("k", Mode::Blind)]));
    let (c, is_c) = latches.acquire(points(&[("k", Mode::Write)]));
    let (d, is_d) = latches.acquire(points(&[("k", Mode::Blind)]));
    assert_eq!((is_a, is_b, is_c, is_d), (true, true, false, false));
    assert_eq!(released(&mut latches, a), vec![]);
    assert_eq!(released(&mut latches, b), vec![c]);
    assert_eq!(released(&mut latches, c), vec![d]);
    assert_eq!(released(&mut latches, d), vec![]);
    assert!(latches.is_empty());
}

#[test]
fn a_span_waits_for_the_keys_in_it_and_later_keys_wait_for_the_span() {
    let mut latches = Latches::default();
    let (a, _) = latches.acquire(points(&[("b", Mode::Blind)]));
    let (outside, is_outside) = latches.acquire(points(&[("x", Mode::Write)]));
    let (wide, is_wide) = latches.acquire(span("a", "c", Mode::Write));
    let (late, is_late) = latches.acquire(points(&[("b", Mode::Blind)]));
    assert!(is_outside && !is_wide && !is_late);
    assert_eq!(released(&mut latches, a), vec![wide]);
    assert_eq!(released(&mut latches, outside), vec![]);
    assert_eq!(released(&mut latches, wide), vec![late]);
}

#[test]
fn the_same_key_twice_in_one_request_is_one_place() {
    let mut latches = Latches::default();
    let (a, is_a) = latches.acquire(points(&[("k", Mode::Blind), ("k", Mode::Read)]));
    let (_, is_b) = latches.acquire(points(&[("k", Mode::Blind)]));
    assert!(is_a && !is_b);
    assert_eq!(released(&mut latches, a).len(), 1);
}

/// What conflicts, said without any index.
fn is_conflict(a: &Footprint, b: &Footprint) -> bool {
    let spans = |f: &Footprint| {
        let mut all = f.spans.clone();
        for (point, mode) in &f.points {
            if let Point::Key(key) = point {
                all.push((Span::key(key.clone()), *mode));
            }
        }
        all
    };
    let leases = |f: &Footprint| {
        f.points
            .iter()
            .filter_map(|(point, mode)| match point {
                Point::Lease(id) => Some((*id, *mode)),
                Point::Past | Point::Members | Point::Key(_) => None,
            })
            .collect::<Vec<_>>()
    };
    spans(a)
        .iter()
        .any(|(x, m)| spans(b).iter().any(|(y, n)| x.overlaps(y) && !m.is_shared_with(*n)))
        || leases(a)
            .iter()
            .any(|(x, m)| leases(b).iter().any(|(y, n)| x == y && !m.is_shared_with(*n)))
}

#[test]
fn random_requests_run_exactly_when_nothing_earlier_conflicts() {
    for seed in 1..400_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut below = |bound: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % bound
        };
        let mut latches = Latches::default();
        // (guard, footprint, runs)
        let mut active: Vec<(Guard, Footprint, bool)> = Vec::new();
        for _ in 0..120 {
            if active.is_empty() || below(5) < 3 {
                let mut footprint = Footprint::default();
                for _ in 0..=below(2) {
                    let mode = [Mode::Blind, Mode::Read, Mode::Write][below(3) as usize];
                    match below(6) {
                        0 => {
                            let from = below(5) as u8;
                            let to = from + 1 + below(4) as u8;
                            footprint.spans.push((
                                Span::from_request(
                                    Bytes::from(vec![b'a' + from]),
                                    Bytes::from(vec![b'a' + to]),
                                ),
                                mode,
                            ));
                        }
                        1 => footprint.points.push((Point::Lease(below(2) as i64), mode)),
                        _ => footprint
                            .points
                            .push((Point::Key(Bytes::from(vec![b'a' + below(6) as u8])), mode)),
                    }
                }
                footprint.normalise();
                let (guard, is_granted) = latches.acquire(footprint.clone());
                let expected = !active.iter().any(|(_, other, _)| is_conflict(other, &footprint));
                assert_eq!(is_granted, expected, "seed {seed}");
                active.push((guard, footprint, is_granted));
            } else {
                let running: Vec<usize> =
                    (0..active.len()).filter(|index| active[*index].2).collect();
                let victim = running[below(running.len() as u64) as usize];
                let (guard, _, _) = active.remove(victim);
                let granted = released(&mut latches, guard);
                for index in 0..active.len() {
                    let expected =
                        !active[..index].iter().any(|(_, o, _)| is_conflict(o, &active[index].1));
                    if granted.contains(&active[index].0) {
                        assert!(!active[index].2, "granted twice, seed {seed}");
                        active[index].2 = true;
                    }
                    assert_eq!(active[index].2, expected, "seed {seed}");
                }
            }
        }
    }
}
