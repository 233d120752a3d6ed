//! What a run leaves behind: JSON for machines, HTML for people, a table on the terminal.

pub mod compare_html;
pub mod html;
pub mod json;
mod svg;
pub mod terminal;
