//! Tests of ranges under one order: real machines on five nodes, a spine that is a plain list of
//! entries, and everything in between random. Every write is executed again at its revision. What a
//! random schedule meets too seldom is done by hand in `hand_over`.

mod empty;
mod hand_over;
mod moves;
mod notes;
mod random;
mod world;
