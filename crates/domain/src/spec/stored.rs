//! The stored form of a specification: JSON in the databases and in `distillery.json`.
//!
//! It is read with tolerance, unlike what a user types: an unknown key is ignored, and a missing one is filled with its
//! default, so that a specification stored by another version can be read. Format 0 is what 0.1.0 wrote, without a number. Up to
//! format 1, an absent `training.patience` never stopped early.

use crate::spec::{
    Draft, JudgingDraft, PROFILE_NONE, Spec, Start, TeacherDraft, TeacherSource, TrainingDraft,
};
use crate::task::Task;
use serde::de::Error;
use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The format that is written. It counts up when the meaning of a key changes; a new key does not change it.
const FORMAT: u32 = 2;
/// From this format on, `training.patience` has a default that stops early.
const FORMAT_OF_PATIENCE: u32 = 2;

#[derive(Deserialize)]
struct StoredSpec {
    #[serde(default)]
    format: u32,
    name: String,
    task: Task,
    #[serde(default)]
    teacher: Option<StoredTeacher>,
    #[serde(default)]
    judging: JudgingDraft,
    start: Start,
    #[serde(default)]
    training: TrainingDraft,
}

#[derive(Deserialize)]
struct StoredTeacher {
    source: TeacherSource,
    #[serde(flatten)]
    settings: TeacherDraft,
}

impl<'de> Deserialize<'de> for Spec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let stored = StoredSpec::deserialize(deserializer)?;
        if stored.format > FORMAT {
            return Err(D::Error::custom(format!(
                "format {} of a specification was written by a newer version: this one reads up to {FORMAT}",
                stored.format
            )));
        }
        let mut training = stored.training;
        if stored.format < FORMAT_OF_PATIENCE {
            training.patience.get_or_insert(0);
        }
        let profile = stored.teacher.as_ref().map_or(PROFILE_NONE, |teacher| teacher.source.profile());
        let profile = Some(profile.to_owned());
        let settings = stored.teacher.map_or_else(TeacherDraft::default, |teacher| teacher.settings);
        let draft = Draft {
            name: stored.name,
            task: stored.task,
            teacher: TeacherDraft { profile, ..settings },
            judging: stored.judging,
            student: stored.start.into(),
            training,
        };
        Ok(draft.fill())
    }
}

impl Serialize for Spec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut stored = serializer.serialize_struct("Spec", 7)?;
        stored.serialize_field("format", &FORMAT)?;
        stored.serialize_field("name", &self.name)?;
        stored.serialize_field("task", &self.task)?;
        stored.serialize_field("teacher", &self.teacher)?;
        stored.serialize_field("judging", &self.judging)?;
        stored.serialize_field("start", &self.start)?;
        stored.serialize_field("training", &self.training)?;
        stored.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn spec() -> Spec {
        Draft {
            name: "job".into(),
            task: Task::built_in("equation").unwrap(),
            teacher: TeacherDraft {
                profile: Some("local".into()),
                samples: Some(3),
                ..TeacherDraft::default()
            },
            judging: JudgingDraft::default(),
            student: crate::spec::StudentDraft::default(),
            training: TrainingDraft { clip_norm: Some(0.5), ..TrainingDraft::default() },
        }
        .resolve()
        .unwrap()
    }

    fn check(change: impl FnOnce(&mut Value), expected: impl FnOnce(&mut Spec)) {
        let mut stored = serde_json::to_value(spec()).unwrap();
        change(&mut stored);
        let mut wanted = spec();
        expected(&mut wanted);
        assert_eq!(serde_json::from_value::<Spec>(stored).unwrap(), wanted);
    }

    fn remove(object: &mut Value, key: &str) {
        assert!(object.as_object_mut().unwrap().remove(key).is_some(), "{key}");
    }

    #[test]
    fn another_version_is_read() {
        check(|_| {}, |_| {});
        check(|stored| remove(stored, "format"), |_| {});
        check(|stored| remove(&mut stored["training"], "patience"), |spec| spec.training.patience = 5);
        let without_patience = |stored: &mut Value| {
            stored["format"] = json!(1);
            stored["training"]["patience"] = Value::Null;
        };
        check(without_patience, |spec| spec.training.patience = 0);
        check(|stored| remove(&mut stored["training"], "clip_norm"), |spec| spec.training.clip_norm = 1.0);
        check(|stored| remove(stored, "training"), |spec| spec.training.clip_norm = 1.0);
        check(|stored| remove(&mut stored["teacher"], "budget"), |_| {});
        check(|stored| stored["task"]["colour"] = json!("red"), |_| {});
        check(|stored| stored["task"]["answer"]["colour"] = json!("red"), |_| {});
        check(|stored| stored["task"]["exemplars"][0]["colour"] = json!("red"), |_| {});
        check(|stored| stored["teacher"]["budget"]["colour"] = json!(7), |_| {});
        check(|stored| stored["training"]["colour"] = json!([1]), |_| {});
        check(|stored| stored["colour"] = json!(null), |_| {});
        check(|stored| stored["teacher"] = Value::Null, |spec| spec.teacher = None);
    }

    #[test]
    fn a_newer_format_is_refused() {
        let mut stored = serde_json::to_value(spec()).unwrap();
        stored["format"] = json!(FORMAT + 1);
        let error = serde_json::from_value::<Spec>(stored).unwrap_err().to_string();
        assert!(error.contains("written by a newer version"), "{error}");
    }
}
