//! Enumerations. A number that is unknown here comes from a newer client: a mistake that names its field.

use crate::convert::Checked;
use crate::v1;
use domain::Violation;

/// The message's enumeration of a domain type.
pub(crate) trait Named: Sized {
    /// Its number on the wire.
    fn number(self) -> i32;
    /// The value of a number; `None` for unspecified.
    fn read(field: &str, number: i32) -> Checked<Option<Self>>;
    /// The value of a number that has to be said.
    fn required(field: &str, number: i32) -> Checked<Self> {
        Self::read(field, number)?.ok_or_else(|| vec![Violation::new(field, "is not specified")])
    }
}

macro_rules! enumeration {
    ($domain:path => $wire:ident { $($variant:ident),+ $(,)? }) => {
        impl Named for $domain {
            fn number(self) -> i32 {
                i32::from(match self { $(Self::$variant => v1::$wire::$variant),+ })
            }

            fn read(field: &str, number: i32) -> Checked<Option<Self>> {
                match v1::$wire::try_from(number) {
                    Ok(v1::$wire::Unspecified) => Ok(None),
                    $(Ok(v1::$wire::$variant) => Ok(Some(Self::$variant)),)+
                    Err(_) => Err(vec![Violation::new(
                        field,
                        format!("has the unknown value {number}: is the client newer than this server?"),
                    )]),
                }
            }
        }

        impl From<$domain> for v1::$wire {
            fn from(value: $domain) -> Self {
                match value { $(<$domain>::$variant => Self::$variant),+ }
            }
        }
    };
}

enumeration!(domain::Split => Split { Train, Validation, Test });
enumeration!(domain::state::DatasetState => DatasetState { Staged, Committed });
enumeration!(domain::state::DistillationState => DistillationState {
    Queued, Harvesting, Training, Evaluating, Succeeded, Failed, Cancelled, Paused,
});
enumeration!(domain::state::Verdict => Verdict { Unjudged, Accepted, Rejected });
enumeration!(domain::state::Reason => Reason {
    NoAnswer, Truncated, Refused, EmptyRationale, LabelNotInSet, Disagrees, Outvoted, NoMajority,
});
enumeration!(domain::state::RunState => RunState { Pending, Leased, Succeeded, Failed, Cancelled });
enumeration!(domain::store::RunInstruction => RunInstruction { Continue, Cancel });
enumeration!(domain::spec::Objective => Objective { Standard, StepByStep, RationaleThenLabel, LabelThenRationale });
enumeration!(domain::spec::Schedule => Schedule { Constant, Linear, Cosine, InverseSquareRoot });
enumeration!(domain::spec::LabelSource => LabelSource { Gold, Teacher });
enumeration!(domain::spec::StudentSize => StudentSize { Tiny, Mini, Small, Base, Large });
enumeration!(domain::task::AnswerShape => AnswerShape { Expression, Choice, Text });
enumeration!(domain::task::Metric => Metric { Text, Equation });

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
