//! Published students and base checkpoints.
#![allow(missing_docs, reason = "a case's name is what it checks")]

use crate::fixtures::{conflict, lease_run, not_found, student, training};
use crate::harness::StoreHarness;
use domain::ids::ModelId;
use domain::ports::PageRequest;
use domain::records::Model;
use std::time::Duration;

async fn published(harness: &dyn StoreHarness, name: &str) -> Model {
    let store = harness.store();
    let run = training(store.as_ref(), name).await.id;
    lease_run(harness, "trainer").await;
    let model = store.publish_run(run, 1, student(run), Default::default()).await.unwrap().unwrap();
    harness.advance(Duration::from_millis(5)).await;
    model
}

pub async fn a_model_is_found_by_name_and_version(harness: &dyn StoreHarness) {
    let store = harness.store();
    let mut models = Vec::new();
    for name in ["sums", "sums", "words", "sums"] {
        models.push(published(harness, name).await);
    }
    for (name, version, place) in [
        ("sums", None, Some(3)),
        ("sums", Some(1), Some(0)),
        ("sums", Some(2), Some(1)),
        ("sums", Some(3), Some(3)),
        ("sums", Some(4), None),
        ("sums", Some(0), None),
        ("words", None, Some(2)),
        ("words", Some(2), None),
        ("Sums", None, None),
        ("nothing", None, None),
    ] {
        let found = store.find_model(name, version).await.unwrap();
        assert_eq!(found.as_ref(), place.map(|place: usize| &models[place]), "{name} {version:?}");
    }
    for model in &models {
        assert_eq!(&store.model(model.id).await.unwrap(), model);
    }
    let unknown = ModelId::generate();
    not_found(store.model(unknown).await, unknown);
}

pub async fn models_are_listed_newest_first(harness: &dyn StoreHarness) {
    let store = harness.store();
    let mut models = Vec::new();
    for name in ["sums", "words", "sums", "sums", "words"] {
        models.push(published(harness, name).await.id);
    }
    for (name, expected) in [
        (None, vec![4, 3, 2, 1, 0]),
        (Some("sums"), vec![3, 2, 0]),
        (Some("words"), vec![4, 1]),
        (Some("nothing"), vec![]),
    ] {
        let expected: Vec<ModelId> = expected.into_iter().map(|place: usize| models[place]).collect();
        for size in [1, 2, 5, 6] {
            let (mut found, mut cursor) = (Vec::new(), None);
            for _page in 0..=models.len() {
                let page = store.list_models(name, &PageRequest { size, cursor }).await.unwrap();
                assert!(page.items.len() <= size);
                found.extend(page.items.into_iter().map(|model| model.id));
                cursor = page.next;
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!((cursor, &found), (None, &expected), "{name:?} by {size}");
        }
    }
}

pub async fn a_deleted_model_is_returned_and_gone(harness: &dyn StoreHarness) {
    let store = harness.store();
    let (first, second) = (published(harness, "sums").await, published(harness, "sums").await);
    assert_eq!(store.delete_model(second.id).await.unwrap(), second, "so that its folder can be collected");
    not_found(store.model(second.id).await, second.id);
    not_found(store.delete_model(second.id).await, second.id);
    assert_eq!(store.find_model("sums", None).await.unwrap().as_ref(), Some(&first));
    let listed = store.list_models(None, &PageRequest { size: 10, cursor: None }).await.unwrap();
    assert_eq!(listed.items, [first]);
    let third = published(harness, "sums").await;
    assert_eq!((second.version, third.version), (2, 3), "a version that was given is not given again");
    let job = store.distillation(second.distillation).await.unwrap();
    assert_eq!(job.state, domain::state::DistillationState::Succeeded, "its job is untouched");
}

pub async fn a_base_model_is_registered_once(harness: &dyn StoreHarness) {
    let store = harness.store();
    assert_eq!(store.base_model("t5-small").await.unwrap(), None);
    let base = store.register_base_model("t5-small", "aa11").await.unwrap();
    assert_eq!((base.name.as_str(), base.manifest_sha256.as_str()), ("t5-small", "aa11"));
    harness.advance(Duration::from_secs(1)).await;
    assert_eq!(store.register_base_model("t5-small", "aa11").await.unwrap(), base, "again does nothing");
    let words = conflict(store.register_base_model("t5-small", "bb22").await);
    assert!(words.contains("t5-small"), "the name is named: {words}");
    assert_eq!(store.base_model("t5-small").await.unwrap(), Some(base));
    let other = store.register_base_model("t5-base", "aa11").await.unwrap();
    assert_eq!(store.base_model("t5-base").await.unwrap(), Some(other));
}
