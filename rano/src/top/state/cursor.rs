//! A place in a list that changes: what is selected stays selected, and in its row of the screen.

/// The selection of a list, by identity.
#[derive(Debug, Clone)]
pub struct Cursor<T> {
    pub selected: Option<T>,
    /// Where it was when it was last placed.
    index: usize,
    /// The first row that is shown.
    pub offset: usize,
}

impl<T> Default for Cursor<T> {
    fn default() -> Self {
        Self { selected: None, index: 0, offset: 0 }
    }
}

impl<T: Clone + PartialEq> Cursor<T> {
    /// Finds what is selected among `items` again; what is gone is followed by what stands in its place.
    pub fn place(&mut self, items: &[T], height: usize) {
        if let Some(selected) = &self.selected {
            if let Some(index) = items.iter().position(|item| item == selected) {
                let shown_at = self.index.saturating_sub(self.offset);
                self.offset = index.saturating_sub(shown_at);
                self.index = index;
            } else {
                self.index = self.index.min(items.len().saturating_sub(1));
                self.selected = items.get(self.index).cloned();
            }
        }
        self.scroll(items.len(), height);
    }

    fn scroll(&mut self, length: usize, height: usize) {
        if self.selected.is_some() {
            self.offset = self.offset.min(self.index);
            self.offset = self.offset.max((self.index + 1).saturating_sub(height.max(1)));
        }
        self.offset = self.offset.min(length.saturating_sub(height.max(1)));
    }

    /// Moves by rows; the first move selects the first row that is shown.
    pub fn step(&mut self, items: &[T], rows: isize) {
        if items.is_empty() {
            return;
        }
        let last = items.len() - 1;
        self.index = match &self.selected {
            None if rows < 0 => last.min(self.offset),
            None => self.offset.saturating_add(rows.unsigned_abs() - 1).min(last),
            Some(_) => self.index.saturating_add_signed(rows).min(last),
        };
        self.selected = items.get(self.index).cloned();
    }

    pub fn select(&mut self, items: &[T], item: &T) {
        if let Some(index) = items.iter().position(|it| it == item) {
            self.index = index;
            self.selected = Some(item.clone());
        }
    }

    pub fn clear(&mut self) {
        self.selected = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_selected_row_stays_where_it_is_on_the_screen() {
        let mut cursor = Cursor::default();
        let mut items: Vec<u32> = (0..20).collect();
        cursor.place(&items, 5);
        assert_eq!((cursor.selected, cursor.offset), (None, 0));
        for _ in 0..8 {
            cursor.step(&items, 1);
            cursor.place(&items, 5);
        }
        assert_eq!((cursor.selected, cursor.offset), (Some(7), 3));
        // Two rows come above.
        items.splice(0..0, [100, 101]);
        cursor.place(&items, 5);
        assert_eq!((cursor.selected, cursor.offset), (Some(7), 5));
        // It goes to the top of the list, and there is no room above it.
        items.retain(|item| *item != 7);
        items.insert(0, 7);
        cursor.place(&items, 5);
        assert_eq!((cursor.selected, cursor.offset), (Some(7), 0));
        // It is gone.
        items.remove(0);
        cursor.place(&items, 5);
        assert_eq!(cursor.selected, Some(100));
        cursor.place(&[], 5);
        assert_eq!((cursor.selected, cursor.offset), (None, 0));
    }

    #[test]
    fn moves_end_at_the_ends() {
        let items = [1, 2, 3];
        let mut cursor = Cursor::default();
        cursor.step(&items, 10);
        assert_eq!(cursor.selected, Some(3));
        cursor.step(&items, -10);
        assert_eq!(cursor.selected, Some(1));
        cursor.step(&[], 1);
        assert_eq!(cursor.selected, Some(1));
    }
}
