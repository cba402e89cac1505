//! Enumerations of the API. A domain value and its message are matched by name, so that a value is written once in the
//! domain and once in the proto file. A number that is unknown here comes from a newer client: a violation of its field.

use crate::convert::Checked;
use crate::v1;
use domain::Violation;
use domain::lifecycle::RunInstruction;

/// A domain enumeration that has a message.
pub(crate) trait Named: Sized {
    /// Its number on the wire.
    fn number(self) -> i32;
    /// The value of a number; `None` for unspecified.
    fn read(field: &str, number: i32) -> Checked<Option<Self>>;
    /// The value of a number that has to be specified.
    fn required(field: &str, number: i32) -> Checked<Self> {
        Self::read(field, number)?.ok_or_else(|| vec![Violation::new(field, "is not specified")])
    }
}

macro_rules! enumerations {
    ($($domain:path => $wire:ident,)+) => {
        $(impl Named for $domain {
            fn number(self) -> i32 {
                i32::from(v1::$wire::from(self))
            }

            fn read(field: &str, number: i32) -> Checked<Option<Self>> {
                if number == i32::from(v1::$wire::Unspecified) {
                    return Ok(None);
                }
                let value = Self::ALL.iter().copied().find(|value| value.number() == number);
                value.map(Some).ok_or_else(|| {
                    let message =
                        format!("has the unknown value {number}: is the client newer than this server?");
                    vec![Violation::new(field, message)]
                })
            }
        }

        impl From<$domain> for v1::$wire {
            fn from(value: $domain) -> Self {
                let prefix = Self::Unspecified.as_str_name().trim_end_matches("UNSPECIFIED");
                let name = format!("{prefix}{}", value.as_str().to_ascii_uppercase());
                // The test below checks that every value has a message.
                Self::from_str_name(&name).unwrap_or(Self::Unspecified)
            }
        })+

        #[cfg(test)]
        mod tests {
            use super::*;

            /// Every value has a number of its own and survives the wire; every number of the message has a value.
            #[test]
            fn values_and_messages_match() {
                $(
                    let numbers: Vec<i32> =
                        (1..).take_while(|number| v1::$wire::try_from(*number).is_ok()).collect();
                    assert_eq!(numbers.len(), <$domain>::ALL.len(), stringify!($wire));
                    for value in <$domain>::ALL {
                        assert_ne!(value.number(), 0, "{value} has no message");
                        assert_eq!(<$domain>::read("field", value.number()), Ok(Some(*value)));
                    }
                    assert_eq!(<$domain>::read("field", 0), Ok(None));
                    assert!(<$domain>::read("field", 99).is_err() && <$domain>::read("field", -1).is_err());
                )+
            }
        }
    };
}

enumerations!(
    domain::Split => Split,
    domain::state::DatasetState => DatasetState,
    domain::state::DistillationState => DistillationState,
    domain::state::BatchState => BatchState,
    domain::state::Verdict => Verdict,
    domain::state::Reason => Reason,
    domain::state::RunState => RunState,
    domain::estimate::Stage => HarvestStage,
    domain::objective::Objective => Objective,
    domain::spec::Schedule => Schedule,
    domain::spec::Precision => Precision,
    domain::spec::LabelSource => LabelSource,
    domain::spec::Rationales => RowRationales,
    domain::spec::Hint => Hint,
    domain::spec::StudentSize => StudentSize,
    domain::spec::Until => AskUntil,
    domain::spec::Select => RowSelection,
    domain::share::Share => RationaleShare,
    domain::share::End => AskingEnd,
    domain::task::AnswerShape => AnswerShape,
    domain::label::Comparison => Metric,
);

impl From<RunInstruction> for v1::RunInstruction {
    fn from(instruction: RunInstruction) -> Self {
        match instruction {
            RunInstruction::Continue => Self::Continue,
            RunInstruction::Cancel => Self::Cancel,
        }
    }
}

/// Reads an optional enumeration of a request, such as a filter.
///
/// # Errors
/// The number is unknown.
pub fn filter<T: FromWire>(field: &str, number: i32) -> Checked<Option<T>> {
    T::from_wire(field, number)
}

/// Enumerations that a service reads out of requests itself.
pub trait FromWire: Sized {
    /// The value of a number; `None` for unspecified.
    ///
    /// # Errors
    /// The number is unknown.
    fn from_wire(field: &str, number: i32) -> Checked<Option<Self>>;
}

impl<T: Named> FromWire for T {
    fn from_wire(field: &str, number: i32) -> Checked<Option<Self>> {
        T::read(field, number)
    }
}
