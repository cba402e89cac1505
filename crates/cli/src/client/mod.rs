//! The calls of the verbs, by subject. Messages of the API stay in here: the rest of the program has the domain's types.

pub(crate) mod call;
pub(crate) mod datasets;
pub(crate) mod jobs;
pub(crate) mod ledger;
pub(crate) mod load;
pub(crate) mod models;
pub(crate) mod runs;
pub(crate) mod student;
