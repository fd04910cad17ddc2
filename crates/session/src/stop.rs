//! Stop strings, found across the pieces in which text comes.

/// Lets text through up to the first stop string.
///
/// What may be the beginning of one is held back until it is certain.
pub(crate) struct StopScanner<'a> {
    stops: &'a [String],
    held: String,
    is_over: bool,
}

impl<'a> StopScanner<'a> {
    pub(crate) fn new(stops: &'a [String]) -> Self {
        StopScanner { stops, held: String::new(), is_over: false }
    }

    /// Whether a stop string was found.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Takes the next piece, gives the text that is certain.
    pub(crate) fn push(&mut self, piece: &str) -> String {
        if self.is_over {
            return String::new();
        }
        self.held.push_str(piece);
        if let Some(end) = self.stops().filter_map(|stop| self.held.find(stop)).min() {
            self.is_over = true;
            self.held.truncate(end);
            return std::mem::take(&mut self.held);
        }
        let uncertain = self.stops().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - uncertain);
        std::mem::replace(&mut self.held, rest)
    }

    /// Gives what was held back: no more text comes.
    pub(crate) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    fn stops(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.stops.iter().map(String::as_str).filter(|stop| !stop.is_empty())
    }
}

/// Bytes of the longest end of `text` that is a beginning of `stop`.
fn overlap(text: &str, stop: &str) -> usize {
    let longest = stop.len().saturating_sub(1).min(text.len());
    let fits = |len: &usize| stop.is_char_boundary(*len) && text.ends_with(&stop[..*len]);
    (1..=longest).rev().find(fits).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(stops: &[&str], pieces: &[&str], expected: &[&str], rest: &str) {
        let stops: Vec<String> = stops.iter().map(ToString::to_string).collect();
        let mut scanner = StopScanner::new(&stops);
        let given: Vec<String> = pieces.iter().map(|piece| scanner.push(piece)).collect();
        assert_eq!(given, expected);
        assert_eq!(scanner.finish(), rest);
    }

    #[test]
    fn text_passes_where_nothing_stops_it() {
        check(&[], &["a", "b"], &["a", "b"], "");
        check(&["END"], &["a", "b"], &["a", "b"], "");
        check(&[""], &["a"], &["a"], "");
    }

    #[test]
    fn a_stop_string_is_cut_wherever_pieces_end() {
        check(&["END"], &["so END it"], &["so "], "");
        check(&["END"], &["so E", "N", "D it"], &["so ", "", ""], "");
        check(&["END"], &["aE", "ND", "more"], &["a", "", ""], "");
        check(&["b", "ab"], &["xab"], &["x"], "");
        check(&["é!"], &["né", "!"], &["n", ""], "");
    }

    #[test]
    fn what_only_began_like_one_comes_out() {
        check(&["END"], &["E", "Nx"], &["", "ENx"], "");
        check(&["END"], &["so EN"], &["so "], "EN");
        check(&["aab"], &["aa", "ab!"], &["", "a"], "");
    }
}
