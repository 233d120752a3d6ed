//! Delta debugging: from a list with which something happens, one of which nothing can be spared.
//! See Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input" (2002). Only
//! complements are tried, as a part alone seldom does what the whole did.

/// A part of `items` with which `happens` is still true, and with no single item less is. It is true
/// with all of them, and should not be asked in vain: once it says that it gives up, with false for
/// everything, what was found so far is the result.
pub(super) fn ddmin<T: Clone>(items: &[T], mut happens: impl FnMut(&[T]) -> bool) -> Vec<T> {
    let mut kept = items.to_vec();
    if kept.is_empty() || happens(&[]) {
        return Vec::new();
    }
    let mut parts_count = 2.min(kept.len());
    // A single item that is left is needed, as nothing at all does not do.
    while kept.len() > 1 {
        let part_len = kept.len().div_ceil(parts_count);
        let without = |start: usize| {
            let end = (start + part_len).min(kept.len());
            [&kept[..start], &kept[end..]].concat()
        };
        let starts = (0..kept.len()).step_by(part_len);
        match starts.map(without).find(|rest| happens(rest)) {
            Some(rest) => {
                kept = rest;
                parts_count = (parts_count - 1).clamp(2.min(kept.len()), kept.len());
            }
            None if part_len == 1 => break,
            None => parts_count = (2 * parts_count).min(kept.len()),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::ddmin;

    /// What is left of a hundred items, and how often was asked.
    fn reduced(happens: impl Fn(&[u32]) -> bool) -> (Vec<u32>, usize) {
        let items: Vec<u32> = (0..100).collect();
        let mut asked_count = 0;
        let kept = ddmin(&items, |rest| {
            asked_count += 1;
            happens(rest)
        });
        (kept, asked_count)
    }

    #[test]
    fn what_is_needed_is_left() {
        let has = |rest: &[u32], wanted: &[u32]| wanted.iter().all(|it| rest.contains(it));
        for wanted in [vec![0], vec![99], vec![41, 42], vec![3, 50, 98], (10..20).collect()] {
            let (kept, asked_count) = reduced(|rest| has(rest, &wanted));
            assert_eq!(kept, wanted);
            assert!(asked_count < 250, "{asked_count} for {wanted:?}");
        }
    }

    #[test]
    fn nothing_is_left_where_nothing_is_needed() {
        assert_eq!(reduced(|_| true), (Vec::new(), 1));
        let none = ddmin(&[] as &[u32], |_| unreachable!("there is nothing to ask"));
        assert!(none.is_empty(), "{none:?}");
        assert_eq!(ddmin(&[7], |rest| !rest.is_empty()), [7]);
    }

    #[test]
    fn no_single_item_can_be_spared() {
        // Any three of the even ones will do, and an odd one spoils it unless 7 is there.
        let happens = |rest: &[u32]| {
            let even_count = rest.iter().filter(|it| *it % 2 == 0).count();
            even_count >= 3 && (even_count == rest.len() || rest.contains(&7))
        };
        let (kept, _) = reduced(happens);
        assert!(happens(&kept), "{kept:?}");
        for spared in &kept {
            let rest: Vec<u32> = kept.iter().copied().filter(|it| it != spared).collect();
            assert!(!happens(&rest), "{spared} of {kept:?} can be spared");
        }
    }

    #[test]
    fn who_gives_up_keeps_what_was_found() {
        let mut left = 3;
        let items: Vec<u32> = (0..64).collect();
        let kept = ddmin(&items, |rest| {
            left -= 1;
            left >= 0 && rest.contains(&5)
        });
        assert!(kept.contains(&5) && kept.len() < 64, "{kept:?}");
    }
}
