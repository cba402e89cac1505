//! The files of a study: `results.json`, `bill.json`, `predictions/` and `report.html`.
//!
//! `results.json` is a function of `predictions/`, and both are the same bytes however often the study was interrupted. What an
//! interruption may change (a call that was in flight, seconds) is in `bill.json`.

use super::page::Page;
use crate::html::write_whole;
use crate::job::amount_json;
use anyhow::Context;
use domain::records::{HarvestProgress, PhaseSeconds, Run};
use domain::study::{Answered, Asked, Cell};
use serde::Serialize;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// What a study found.
pub(crate) const RESULTS: &str = "results.json";
/// What it cost.
pub(crate) const BILL: &str = "bill.json";
/// What people read.
pub(crate) const PAGE: &str = "report.html";
/// The folder of what was answered: a file for each cell, and one for the teacher.
pub(crate) const PREDICTIONS: &str = "predictions";
/// The teacher's file in it: no cell has this name.
const TEACHER: &str = "teacher";

/// What a study cost; `milliseconds` of an answer of each cell's student.
pub(crate) fn bill(
    harvest: &HarvestProgress,
    seconds: &PhaseSeconds,
    cells: &[(Cell, Run)],
    milliseconds: &[f64],
) -> Value {
    let results = || cells.iter().filter_map(|(cell, run)| Some((cell, run.result.as_ref()?)));
    let each: serde_json::Map<String, Value> = results()
        .zip(milliseconds)
        .map(|((cell, result), milliseconds)| {
            let (train, evaluate) = (result.train_seconds, result.evaluate_seconds);
            (cell.name(), json!({"train": train, "evaluate": evaluate, "milliseconds": milliseconds}))
        })
        .collect();
    let train: f64 = results().map(|(_, result)| result.train_seconds).sum();
    let evaluate: f64 = results().map(|(_, result)| result.evaluate_seconds).sum();
    json!({
        "calls": harvest.calls,
        "cache_hits": harvest.cache_hits,
        "tokens_in": harvest.tokens_in,
        "tokens_out": harvest.tokens_out,
        "money_micros": harvest.money_micros,
        "in_doubt": amount_json(harvest.in_doubt),
        "seconds": {"harvest": seconds.harvest, "train": train, "evaluate": evaluate},
        "cells": each,
    })
}

/// Writes what a study found, and what it follows from.
pub(crate) fn write(folder: &Path, page: &Page<'_>, teacher: Option<&Asked>) -> anyhow::Result<()> {
    let predictions = folder.join(PREDICTIONS);
    let is_known = folder.join(RESULTS).exists();
    fs::create_dir_all(&predictions).with_context(|| predictions.display().to_string())?;
    let mut written = Vec::with_capacity(page.students.len() + 1);
    for student in page.students {
        let name = student.cell.name();
        let head = json!({"cell": name, "parameters": student.parameters, "rows": student.rows.len()});
        written.push(write_rows(&predictions, &name, &head, &student.rows)?);
    }
    if let Some(asked) = teacher {
        let head = json!({"teacher": asked.name, "rows": asked.rows.len()});
        written.push(write_rows(&predictions, TEACHER, &head, &asked.rows)?);
    }
    // Of an earlier grid, and only where an earlier study wrote here.
    if is_known {
        remove_others(&predictions, &written)?;
    }
    write_json(&folder.join(BILL), page.bill)?;
    write_whole(&folder.join(PAGE), page.file().as_bytes())?;
    write_json(&folder.join(RESULTS), page.results)
}

/// A header line, and a line for each row; returns the file's name.
fn write_rows(folder: &Path, name: &str, head: &Value, rows: &[Answered]) -> anyhow::Result<String> {
    let mut text = serde_json::to_string(head)?;
    text.push('\n');
    for row in rows {
        text.push_str(&serde_json::to_string(row)?);
        text.push('\n');
    }
    let name = format!("{name}.jsonl");
    write_whole(&folder.join(&name), text.as_bytes())?;
    Ok(name)
}

/// Removes the predictions of cells that an earlier grid had: what lies here is what the results follow from.
fn remove_others(folder: &Path, written: &[String]) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.ends_with(".jsonl") && !written.contains(&name) {
            fs::remove_file(&path).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

fn write_json(path: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    write_whole(path, text.as_bytes())
}
