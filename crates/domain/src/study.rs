//! A study: whether rationales help, on how many rows, in how large a student.
//!
//! A study is a grid of runs over one ledger ([`Grid`]), with controls that can say no: an arm that learns labels only, and one
//! that learns another row's rationales. What its students answer to the same test rows is its only evidence; [`Results`]
//! follows from that and from nothing else, in numbers that are the same whenever they are computed.

mod grid;
mod lattice;
mod results;
mod statistics;

pub use grid::{Arm, Cell, Grid, Question, Setting};
pub use results::{Answer, Answered, Answers, Asked, CellResult, Measured, Results, TeacherResult};
pub use statistics::{
    DRAWS, Estimate, LEVEL, POWER, Scores, estimates, expected_error, holm, smallest_difference,
};
