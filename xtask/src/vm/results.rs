//! What the test program in a guest said, test by test.

/// How a test ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    Failed,
    /// With the reason.
    Skipped(String),
}

/// Of one run of the test program.
#[derive(Debug, Clone, Default)]
pub(crate) struct Results {
    /// By name, in the order in which they ended.
    pub tests: Vec<(String, Outcome)>,
    /// Lines `fact: KEY VALUE` that tests printed.
    pub facts: Vec<(String, String)>,
    /// Whether the program came to its end.
    pub complete: bool,
}

impl Results {
    pub(crate) fn parse(output: &str) -> Self {
        let mut results = Self::default();
        for line in output.lines() {
            if let Some(test) = line.strip_prefix("test ").and_then(test) {
                results.tests.push(test);
            } else if line.starts_with("test result: ") {
                results.complete = true;
            } else if let Some(fact) = line.strip_prefix("fact: ")
                && let Some((key, value)) = fact.rsplit_once(' ')
            {
                results.facts.push((key.to_owned(), value.to_owned()));
            }
        }
        results
    }

    pub(crate) fn count(&self, wanted: impl Fn(&Outcome) -> bool) -> usize {
        self.tests.iter().filter(|(_, outcome)| wanted(outcome)).count()
    }
}

fn test(line: &str) -> Option<(String, Outcome)> {
    let (name, ended) = line.split_once(" ... ")?;
    let outcome = match ended.trim() {
        "ok" => Outcome::Passed,
        "FAILED" => Outcome::Failed,
        other => {
            let reason = other.strip_prefix("ignored")?.trim();
            Outcome::Skipped(
                reason
                    .strip_prefix('(')
                    .and_then(|inner| inner.strip_suffix(')'))
                    .unwrap_or(reason)
                    .to_owned(),
            )
        }
    };
    Some((name.trim().to_owned(), outcome))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_facts_and_the_end_are_found() {
        let output = "\nrunning 3 tests\ntest a::one   ... ok\ntest a::two ... FAILED\n\
                      test b::three ... ignored (no kprobes (here))\nfact: instructions tcp_events 1234\n\
                      test result: FAILED. 1 passed; 1 failed\n";
        let results = Results::parse(output);
        assert_eq!(results.tests[0], ("a::one".to_owned(), Outcome::Passed));
        assert_eq!(results.tests[1], ("a::two".to_owned(), Outcome::Failed));
        assert_eq!(
            results.tests[2],
            ("b::three".to_owned(), Outcome::Skipped("no kprobes (here)".to_owned()))
        );
        assert_eq!(results.facts, [("instructions tcp_events".to_owned(), "1234".to_owned())]);
        assert!(results.complete);
        assert!(!Results::parse("test a::one ... ok\n").complete);
    }
}
