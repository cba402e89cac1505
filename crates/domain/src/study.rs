//! A study: whether rationales help, on how many rows, in how large a student.
//!
//! A study is a grid of runs over one ledger ([`Grid`]), with controls that can say no: an arm that learns labels only, and one
//! that learns another row's rationales. What its students answer to the same test rows is its only evidence; [`Results`]
//! follows from that and from nothing else, in numbers that are the same whenever they are computed.

mod answers;
mod grid;
mod lattice;
mod results;
mod routing;
mod statistics;
mod trust;

pub use answers::{Answered, Answers, Asked};
pub use grid::{Arm, Cell, Grid, Question, Setting};
pub use results::{Answer, CellResult, ClassAccuracy, Measured, Results, TeacherResult};
pub use routing::{Kept, Route, Routing};
pub use statistics::{
    DRAWS, Estimate, LEVEL, POWER, Scores, estimates, expected_error, holm, smallest_difference,
};
pub use trust::{Trust, conclusion};
