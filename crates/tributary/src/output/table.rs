//! Plain tables: a heading in capitals, columns two spaces apart.

use comfy_table::{CellAlignment, Table, presets};

/// Draws a table. `right` names the columns with numbers, counted from 0.
pub(crate) fn draw(heading: &[&str], right: &[usize], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(heading.iter().copied());
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    for index in right {
        if let Some(column) = table.column_mut(*index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Moves every line to the right.
pub(crate) fn indented(text: &str, by: usize) -> String {
    text.lines().map(|line| format!("{:by$}{line}\n", "")).collect()
}

/// Writes a number with a comma between groups of three digits.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        let written: Vec<String> = [0, 999, 1000, 69_659, 1_000_000].map(grouped).into();
        assert_eq!(written, ["0", "999", "1,000", "69,659", "1,000,000"]);
    }

    #[test]
    fn numbers_stand_on_the_right_and_lines_end_early() {
        let rows = vec![vec!["a".to_owned(), "5".to_owned(), String::new()]];
        assert_eq!(
            draw(&["NAME", "COUNT", "NOTE"], &[1], rows),
            "NAME  COUNT  NOTE\na         5\n"
        );
    }
}
