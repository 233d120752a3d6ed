//! The order of turns: A B, B A, A B, so that drift of the machine falls on all alike.

/// The targets' numbers in the order of their turns in one repetition.
#[must_use]
pub fn order(repetition: usize, targets: usize) -> Vec<usize> {
    let forward = 0..targets;
    if repetition.is_multiple_of(2) { forward.collect() } else { forward.rev().collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_swap_and_all_have_a_turn() {
        assert_eq!(order(0, 2), [0, 1]);
        assert_eq!(order(1, 2), [1, 0]);
        assert_eq!(order(3, 3), [2, 1, 0]);
    }
}
