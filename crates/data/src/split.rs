//! Which rows are kept back for validation.

use crate::random::{key, purpose};

/// Chooses the share `fraction` of the rows, sorted.
///
/// A function of the seed and of the rows' identities, not of their order. As
/// long as there are two rows and `fraction` is above zero, both sides get one.
pub fn validation_rows(rows: &[u64], fraction: f64, seed: u64) -> Vec<u64> {
    if fraction <= 0.0 || rows.len() < 2 {
        return Vec::new();
    }
    let count = (fraction * rows.len() as f64).round() as usize;
    let mut chosen = rows.to_vec();
    chosen.sort_by_cached_key(|&row| (key(&[purpose::SPLIT, seed, row]), row));
    chosen.truncate(count.clamp(1, rows.len() - 1));
    chosen.sort_unstable();
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rows: u64, fraction: f64, expected: usize) {
        let rows: Vec<u64> = (0..rows).collect();
        assert_eq!(validation_rows(&rows, fraction, 1).len(), expected);
    }

    #[test]
    fn neither_side_is_empty() {
        check(1, 0.5, 0);
        check(2, 0.01, 1);
        check(2, 0.99, 1);
        check(100, 0.1, 10);
        check(100, 0.0, 0);
    }

    #[test]
    fn order_does_not_matter_and_the_seed_does() {
        let rows: Vec<u64> = (0..50).collect();
        let reversed: Vec<u64> = rows.iter().rev().copied().collect();
        let chosen = validation_rows(&rows, 0.2, 1);
        assert_eq!(chosen, validation_rows(&reversed, 0.2, 1));
        assert_ne!(chosen, validation_rows(&rows, 0.2, 2));
        assert!(chosen.is_sorted());
    }
}
