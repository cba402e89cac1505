//! Datasets: staged, appended to, committed, deleted.
#![allow(missing_docs, reason = "a case's name is what it checks")]

use crate::fixtures::{
    LOST_MAX, committed, conflict, dataset, invalid, job, job_in, names_number, not_found, row, rows, spec,
};
use crate::harness::{Store, StoreHarness};
use domain::ids::{DatasetId, RequestId};
use domain::ports::{BATCH_MAX, PageRequest};
use domain::records::{Dataset, RowCounts};
use domain::state::{DatasetState, DistillationState};
use domain::{Answer, Example, Split};
use std::time::Duration;

async fn staged(store: &dyn Store) -> DatasetId {
    store.create_dataset(RequestId::generate(), "numbers").await.unwrap().id
}

async fn contents(store: &dyn Store, dataset: DatasetId) -> Vec<Example> {
    let rows = store.rows(dataset, None, 0, BATCH_MAX).await.unwrap();
    for (row, index) in rows.iter().zip(0..) {
        assert_eq!(row.index, index, "rows come in order, without holes");
    }
    rows.into_iter().map(|row| row.example).collect()
}

pub async fn a_repeated_request_makes_one_dataset(harness: &dyn StoreHarness) {
    let store = harness.store();
    let request = RequestId::generate();
    let first = store.create_dataset(request, "numbers").await.unwrap();
    let expected = Dataset {
        id: first.id,
        name: "numbers".to_owned(),
        state: DatasetState::Staged,
        rows: 0,
        rows_by_split: [0; 3],
        rows_labelled: 0,
        fingerprint: String::new(),
        created_at: first.created_at,
    };
    assert_eq!(first, expected);
    store.append_rows(first.id, 0, rows(2)).await.unwrap();
    let again = store.create_dataset(request, "numbers").await.unwrap();
    assert_eq!((again.id, again.rows), (first.id, 2), "the first one, with the offset at which it continues");
    assert_ne!(store.create_dataset(RequestId::generate(), "numbers").await.unwrap().id, first.id);
}

pub async fn rows_come_back_as_they_were_appended(harness: &dyn StoreHarness) {
    let store = harness.store();
    let id = staged(store.as_ref()).await;
    let whole = Example {
        key: Some("ключ \"7\"".to_owned()),
        split: Split::Test,
        input: "Où est-ce?\n\ttab \\ 'quote' \u{1F980}".to_owned(),
        choices: vec!["river".to_owned(), "sea".to_owned()],
        premise: None,
        hypothesis: None,
        label: Some("sea".to_owned()),
        answers: vec![
            Answer::Completion { teacher: "palm-540b".to_owned(), text: "Deep. So".to_owned() },
            Answer::Rationale { teacher: "import".to_owned(), text: "Deep.".to_owned(), label: None },
        ],
    };
    let pair = Example {
        split: Split::Validation,
        premise: Some("A dog runs.".to_owned()),
        hypothesis: Some("It moves.".to_owned()),
        ..Example::default()
    };
    assert_eq!(store.append_rows(id, 0, vec![row(0), whole.clone()]).await.unwrap(), 2);
    assert_eq!(store.append_rows(id, 2, vec![pair.clone()]).await.unwrap(), 3);
    assert_eq!(store.append_rows(id, 3, Vec::new()).await.unwrap(), 3, "no rows add nothing");
    assert_eq!(contents(store.as_ref(), id).await, [row(0), whole, pair]);
}

pub async fn a_repeated_chunk_does_nothing_twice(harness: &dyn StoreHarness) {
    let store = harness.store();
    let id = staged(store.as_ref()).await;
    store.append_rows(id, 0, rows(3)).await.unwrap();
    let other = Example { input: "something else".to_owned(), ..Example::default() };
    assert_eq!(store.append_rows(id, 0, rows(3)).await.unwrap(), 3, "the whole chunk again");
    assert_eq!(store.append_rows(id, 1, vec![other]).await.unwrap(), 3, "what is known is not overwritten");
    let overlapping = vec![row(2), row(3), row(4)];
    assert_eq!(store.append_rows(id, 2, overlapping).await.unwrap(), 5, "the new part is appended");
    assert_eq!(contents(store.as_ref(), id).await, rows(5));
    let dataset = store.dataset(id).await.unwrap();
    assert_eq!((dataset.rows, dataset.rows_labelled, dataset.rows_by_split), (5, 5, [5, 0, 0]));
}

pub async fn a_gap_is_a_conflict_that_names_the_end(harness: &dyn StoreHarness) {
    let store = harness.store();
    let id = staged(store.as_ref()).await;
    store.append_rows(id, 0, rows(7)).await.unwrap();
    let words = conflict(store.append_rows(id, 23, vec![row(23)]).await);
    assert!(names_number(&words, 7), "the end is 7: {words}");
    assert_eq!(contents(store.as_ref(), id).await, rows(7), "nothing is written");
}

pub async fn repeated_keys_are_named_with_both_rows(harness: &dyn StoreHarness) {
    let store = harness.store();
    let id = staged(store.as_ref()).await;
    store.append_rows(id, 0, rows(4)).await.unwrap();
    let keyed = |key: &str| Example { key: Some(key.to_owned()), ..row(0) };
    let keyless = || Example { key: None, ..row(0) };
    for (chunk, twins) in [
        (vec![keyed("new"), keyless(), keyed("row-3")], (3, 6)),
        (vec![keyed("new"), keyless(), keyless(), keyless(), keyed("new")], (4, 8)),
    ] {
        let words = invalid(store.append_rows(id, 4, chunk).await);
        assert!(names_number(&words, twins.0) && names_number(&words, twins.1), "{twins:?}: {words}");
        assert_eq!(store.dataset(id).await.unwrap().rows, 4, "the whole chunk is refused");
        assert_eq!(contents(store.as_ref(), id).await, rows(4));
    }
    assert_eq!(store.append_rows(id, 4, vec![keyed("new"), keyless(), keyless()]).await.unwrap(), 7);
    let odd = ["7", "null", "[1]", "a\"b\\\n\t\u{1}", "a\0b", "a\0c", "\u{2028}\u{1F980}"].map(keyed);
    assert_eq!(store.append_rows(id, 7, odd.to_vec()).await.unwrap(), 14, "keys are compared whole");
    for (key, twin) in odd.iter().zip(7..) {
        let words = invalid(store.append_rows(id, 14, vec![keyless(), key.clone()]).await);
        assert!(names_number(&words, twin) && names_number(&words, 15), "{key:?} stands on {twin}: {words}");
    }
    let other = staged(store.as_ref()).await;
    assert_eq!(store.append_rows(other, 0, rows(4)).await.unwrap(), 4, "another dataset has its own keys");
}

pub async fn a_committed_dataset_is_immutable(harness: &dyn StoreHarness) {
    let store = harness.store();
    let id = dataset(store.as_ref(), rows(2)).await.id;
    conflict(store.append_rows(id, 2, vec![row(2)]).await);
    assert_eq!(contents(store.as_ref(), id).await, rows(2));
}

pub async fn a_commit_is_repeated_only_with_the_same_fingerprint(harness: &dyn StoreHarness) {
    let store = harness.store();
    let id = staged(store.as_ref()).await;
    store.append_rows(id, 0, rows(2)).await.unwrap();
    let committed = store.commit_dataset(id, "aa11").await.unwrap();
    assert_eq!((committed.state, committed.fingerprint.as_str()), (DatasetState::Committed, "aa11"));
    assert_eq!(store.commit_dataset(id, "aa11").await.unwrap(), committed);
    conflict(store.commit_dataset(id, "bb22").await);
    assert_eq!(store.dataset(id).await.unwrap(), committed);
}

pub async fn a_staged_dataset_is_invisible(harness: &dyn StoreHarness) {
    let store = harness.store();
    let id = staged(store.as_ref()).await;
    store.append_rows(id, 0, rows(1)).await.unwrap();
    assert_eq!(store.find_dataset("numbers").await.unwrap(), None);
    assert_eq!(store.find_dataset_by_fingerprint("").await.unwrap(), None, "it has no fingerprint yet");
    assert_eq!(store.list_datasets(&PageRequest { size: 10, cursor: None }).await.unwrap().items, []);
    assert_eq!(store.dataset(id).await.unwrap().rows, 1, "its uploader sees it");
    let dataset = store.commit_dataset(id, "aa11").await.unwrap();
    assert_eq!(store.find_dataset("numbers").await.unwrap().as_ref(), Some(&dataset));
    assert_eq!(store.find_dataset_by_fingerprint("aa11").await.unwrap().as_ref(), Some(&dataset));
    assert_eq!(store.list_datasets(&PageRequest { size: 10, cursor: None }).await.unwrap().items, [dataset]);
}

pub async fn what_is_staged_for_long_is_removed(harness: &dyn StoreHarness) {
    let store = harness.store();
    let age = Duration::from_secs(3_600);
    let kept = dataset(store.as_ref(), rows(2)).await;
    let mut left = Vec::new();
    for count in 0..3 {
        let id = staged(store.as_ref()).await;
        store.append_rows(id, 0, rows(count)).await.unwrap();
        left.push(id);
    }
    let late = staged(store.as_ref()).await;
    store.append_rows(late, 0, rows(1)).await.unwrap();
    harness.advance(age / 2).await;
    let young = staged(store.as_ref()).await;
    store.append_rows(young, 0, rows(3)).await.unwrap();
    assert_eq!(store.remove_staged(age).await.unwrap(), 0);
    harness.advance(age / 2 + Duration::from_secs(1)).await;
    let late = store.commit_dataset(late, "cc33").await.unwrap();
    assert_eq!(store.remove_staged(age).await.unwrap(), 3);
    assert_eq!(store.remove_staged(age).await.unwrap(), 0);
    for id in left {
        not_found(store.dataset(id).await, id);
        not_found(store.append_rows(id, 0, rows(1)).await, id);
        assert_eq!(contents(store.as_ref(), id).await, []);
    }
    assert_eq!(store.dataset(kept.id).await.unwrap(), kept);
    assert_eq!(store.dataset(late.id).await.unwrap(), late);
    assert_eq!(contents(store.as_ref(), young).await, rows(3), "it can be continued");
}

pub async fn the_newest_of_a_name_or_a_fingerprint_is_found(harness: &dyn StoreHarness) {
    let store = harness.store();
    let mut made = Vec::new();
    for (name, fingerprint) in [("numbers", "aa"), ("words", "bb"), ("numbers", "bb"), ("words", "aa")] {
        made.push(committed(store.as_ref(), name, rows(1), fingerprint).await);
        harness.advance(Duration::from_millis(5)).await;
    }
    staged(store.as_ref()).await;
    for (name, newest) in [("numbers", Some(2)), ("words", Some(3)), ("Numbers", None), ("nothing", None)] {
        let expected: Option<&Dataset> = newest.map(|place: usize| &made[place]);
        assert_eq!(store.find_dataset(name).await.unwrap().as_ref(), expected, "{name}");
    }
    for (fingerprint, newest) in [("aa", Some(3)), ("bb", Some(2)), ("cc", None)] {
        let expected: Option<&Dataset> = newest.map(|place: usize| &made[place]);
        let found = store.find_dataset_by_fingerprint(fingerprint).await.unwrap();
        assert_eq!(found.as_ref(), expected, "{fingerprint}");
    }
}

/// Rows 0 to 9: every third one is of the train, validation and test split, in turn.
fn mixed() -> Vec<Example> {
    let splits = [Split::Train, Split::Validation, Split::Test];
    (0..10).zip(splits.into_iter().cycle()).map(|(index, split)| Example { split, ..row(index) }).collect()
}

pub async fn rows_are_read_by_split_and_place(harness: &dyn StoreHarness) {
    let store = harness.store();
    let id = dataset(store.as_ref(), mixed()).await.id;
    dataset(store.as_ref(), mixed()).await;
    for (split, from, limit, expected) in [
        (None, 0, 100, vec![0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (None, 4, 3, vec![4, 5, 6]),
        (None, 10, 3, vec![]),
        (None, 1_000_000, 3, vec![]),
        (Some(Split::Train), 0, 100, vec![0, 3, 6, 9]),
        (Some(Split::Train), 1, 2, vec![3, 6]),
        (Some(Split::Validation), 0, 100, vec![1, 4, 7]),
        (Some(Split::Validation), 7, 100, vec![7]),
        (Some(Split::Test), 3, 1, vec![5]),
        (Some(Split::Test), 9, 1, vec![]),
    ] {
        let rows = store.rows(id, split, from, limit).await.unwrap();
        let indexes: Vec<u64> = rows.iter().map(|row| row.index).collect();
        assert_eq!(indexes, expected, "{split:?} from {from}, {limit} at most");
        for found in rows {
            assert_eq!(found.example, mixed()[found.index as usize], "the row that stands there");
        }
    }
}

pub async fn rows_are_counted_by_split(harness: &dyn StoreHarness) {
    let store = harness.store();
    let mut rows = mixed();
    rows[3].label = None;
    rows[4].label = None;
    for (index, answers) in [(0, 2), (3, 1), (5, 1)] {
        let text = || Answer::Rationale { teacher: "import".into(), text: "One.".into(), label: None };
        rows[index].answers = vec![text(); answers];
    }
    let dataset = dataset(store.as_ref(), rows).await;
    assert_eq!((dataset.rows, dataset.rows_by_split, dataset.rows_labelled), (10, [4, 3, 3], 8));
    for (split, rows, labelled, answered) in
        [(Split::Train, 4, 3, 2), (Split::Validation, 3, 2, 0), (Split::Test, 3, 3, 1)]
    {
        let counts = store.row_counts(dataset.id, split).await.unwrap();
        assert_eq!(counts, RowCounts { rows, labelled, answered }, "{split}");
    }
}

pub async fn no_page_of_rows_is_longer_than_a_batch(harness: &dyn StoreHarness) {
    let store = harness.store();
    let id = staged(store.as_ref()).await;
    let count = BATCH_MAX as u64 + 5;
    store.append_rows(id, 0, (0..900).map(row).collect()).await.unwrap();
    store.append_rows(id, 900, (900..count).map(row).collect()).await.unwrap();
    assert_eq!(store.rows(id, None, 0, usize::MAX).await.unwrap().len(), BATCH_MAX);
    assert_eq!(store.rows(id, Some(Split::Train), BATCH_MAX as u64, usize::MAX).await.unwrap().len(), 5);
}

pub async fn a_dataset_stays_while_an_unfinished_job_reads_it(harness: &dyn StoreHarness) {
    use DistillationState as State;
    let store = harness.store();
    for state in State::ALL {
        let job = job_in(harness, *state).await;
        let dataset = store.distillation(job).await.unwrap().dataset;
        let deleted = store.delete_dataset(dataset).await;
        if state.is_terminal() {
            assert!(deleted.is_ok(), "{state}: {deleted:?}");
            not_found(store.dataset(dataset).await, dataset);
            assert_eq!(store.rows(dataset, None, 0, 10).await.unwrap(), [], "{state}");
            assert_eq!(store.distillation(job).await.unwrap().state, *state, "the job is still there");
        } else {
            conflict(deleted);
            assert_eq!(store.rows(dataset, None, 0, 10).await.unwrap().len(), 1, "{state}");
        }
    }
}

pub async fn a_failed_job_does_not_resume_without_its_dataset(harness: &dyn StoreHarness) {
    let store = harness.store();
    let job = job_in(harness, DistillationState::Failed).await;
    store.delete_dataset(store.distillation(job).await.unwrap().dataset).await.unwrap();
    conflict(store.resume(job).await);
    assert_eq!(store.distillation(job).await.unwrap().state, DistillationState::Failed);
    assert_eq!(
        store.lease_run("trainer", harness.lease(), LOST_MAX).await.unwrap(),
        None,
        "no trainer gets its run"
    );
}

pub async fn a_deleted_dataset_is_gone(harness: &dyn StoreHarness) {
    let store = harness.store();
    let gone = committed(store.as_ref(), "numbers", rows(3), "aa").await;
    let kept = committed(store.as_ref(), "numbers", rows(3), "aa").await;
    let half = staged(store.as_ref()).await;
    store.append_rows(half, 0, rows(1)).await.unwrap();
    for id in [gone.id, half] {
        store.delete_dataset(id).await.unwrap();
        not_found(store.dataset(id).await, id);
        not_found(store.delete_dataset(id).await, id);
    }
    assert_eq!(store.row_counts(gone.id, Split::Train).await.unwrap(), RowCounts::default());
    assert_eq!(store.find_dataset("numbers").await.unwrap().as_ref(), Some(&kept));
    assert_eq!(contents(store.as_ref(), kept.id).await, rows(3), "the other one is whole");
    let new = crate::fixtures::new_job(spec("sums"), gone.id);
    not_found(store.create_distillation(new).await, gone.id);
    job(store.as_ref(), spec("sums"), kept.id).await;
}

pub async fn unknown_datasets_are_not_found(harness: &dyn StoreHarness) {
    let store = harness.store();
    let unknown = DatasetId::generate();
    not_found(store.dataset(unknown).await, unknown);
    not_found(store.append_rows(unknown, 0, rows(1)).await, unknown);
    not_found(store.commit_dataset(unknown, "aa").await, unknown);
    not_found(store.delete_dataset(unknown).await, unknown);
}

pub async fn all_pages_together_are_everything_once(harness: &dyn StoreHarness) {
    let store = harness.store();
    let mut expected = Vec::new();
    for index in 0..7 {
        expected.push(committed(store.as_ref(), &format!("set-{index}"), rows(1), "aa").await.id);
    }
    expected.reverse();
    for size in [1, 2, 3, 7, 8] {
        let (mut found, mut cursor, mut pages) = (Vec::new(), None, 0);
        loop {
            let page = store.list_datasets(&PageRequest { size, cursor }).await.unwrap();
            assert!(page.items.len() <= size, "{} items on a page of {size}", page.items.len());
            found.extend(page.items.into_iter().map(|dataset| dataset.id));
            pages += 1;
            assert!(pages <= 9, "the pages of {size} do not end");
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(found, expected, "pages of {size}, newest first");
    }
    let clamped = store.list_datasets(&PageRequest { size: 0, cursor: None }).await.unwrap();
    assert_eq!(clamped.items.len(), 1, "a size of 0 is clamped to 1");
}

pub async fn a_page_goes_on_where_it_ended_whatever_was_added(harness: &dyn StoreHarness) {
    let store = harness.store();
    let first = committed(store.as_ref(), "first", rows(1), "aa").await;
    let second = committed(store.as_ref(), "second", rows(1), "aa").await;
    let page = store.list_datasets(&PageRequest { size: 1, cursor: None }).await.unwrap();
    assert_eq!(page.items, [second]);
    harness.advance(Duration::from_millis(5)).await;
    committed(store.as_ref(), "third", rows(1), "aa").await;
    let page = store.list_datasets(&PageRequest { size: 1, cursor: page.next }).await.unwrap();
    assert_eq!(page.items, [first]);
}

pub async fn foreign_cursors_are_invalid(harness: &dyn StoreHarness) {
    let store = harness.store();
    committed(store.as_ref(), "numbers", rows(1), "aa").await;
    for cursor in ["", "-", "1", "next", "12-zz", "é", "'; DROP TABLE datasets; --"] {
        let page = PageRequest { size: 1, cursor: Some(cursor.to_owned()) };
        invalid(store.list_datasets(&page).await);
        invalid(store.list_distillations(&domain::ports::DistillationFilter::default(), &page).await);
        invalid(store.list_models(None, &page).await);
    }
}
