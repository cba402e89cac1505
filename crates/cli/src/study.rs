//! A study on its way: its cells trained, their evidence gathered, what it found written and shown.

pub(crate) mod cells;
mod chart;
pub(crate) mod evidence;
pub(crate) mod files;
pub(crate) mod pace;
pub(crate) mod page;
pub(crate) mod words;
