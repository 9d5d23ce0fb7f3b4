//! Which events are shown: all, or those that a filter holds of.

use crate::event::Event;
use crate::filter::{Facts, Filter};
use crate::update::{Hidden, Renamed};

/// A filter at work.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    filter: Option<Filter>,
    /// Events that were not shown.
    hidden: u64,
}

impl Shown {
    pub fn new(filter: Option<Filter>) -> Self {
        Self { filter, hidden: 0 }
    }

    /// Whether an event is to be shown; one that is not is counted.
    pub fn takes(&mut self, event: &Event) -> bool {
        let takes = self.holds(&Facts::from(event));
        self.hidden += u64::from(!takes);
        takes
    }

    /// The same of a name, which is no event of its own: it belongs to the first one of its connection.
    pub fn takes_name(&self, renamed: &Renamed) -> bool {
        let connection = &renamed.connection;
        self.holds(&Facts::of(connection.first_event(), connection))
    }

    fn holds(&self, facts: &Facts<'_>) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.matches(facts))
    }

    pub fn hidden(&self) -> Option<Hidden> {
        let filter = self.filter.as_ref()?.text().to_owned();
        Some(Hidden { filter, events: self.hidden })
    }
}
