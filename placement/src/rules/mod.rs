//! The rules of placement.

pub mod hand_over;
