//! Values of settings, and enumerations with a name for each value: how it is stored, shown and typed.

/// A value that a setting can have.
pub(crate) trait Value {
    /// The kind of value, as the reference shows it.
    const KIND: &'static str;
    /// The kind of a list of such values.
    const LIST: &'static str = "list of";

    /// Every value with its documentation, for an enumeration; empty for other kinds.
    fn choices() -> Vec<(&'static str, &'static str)> {
        Vec::new()
    }

    /// The value as a number, where it is compared with a range.
    fn number(&self) -> Option<f64> {
        None
    }

    /// The value as text, the same for equal values in every version.
    fn text(&self) -> String;
}

impl<T: Value> Value for Vec<T> {
    const KIND: &'static str = T::LIST;

    fn choices() -> Vec<(&'static str, &'static str)> {
        T::choices()
    }

    fn text(&self) -> String {
        self.iter().map(Value::text).collect::<Vec<_>>().join(",")
    }
}

macro_rules! value {
    ($($kind:ty, $name:literal, $list:literal, $number:expr;)+) => {
        $(impl Value for $kind {
            const KIND: &'static str = $name;
            const LIST: &'static str = $list;

            fn number(&self) -> Option<f64> {
                let number: fn(&$kind) -> Option<f64> = $number;
                number(self)
            }

            fn text(&self) -> String {
                self.to_string()
            }
        })+
    };
}

value! {
    u32, "integer", "list of integers", |number| Some(f64::from(*number));
    u64, "integer", "list of integers", |number| Some(*number as f64);
    f64, "number", "list of numbers", |number| Some(*number);
    bool, "true or false", "list of true or false", |_| None;
    String, "text", "list of texts", |_| None;
}

/// Defines an enumeration from its values, their names and their documentation, all written once.
macro_rules! named {
    ($(#[doc = $documentation:literal])* $name:ident {
        $($(#[doc = $variant_documentation:literal])* $variant:ident = $text:literal),+ $(,)?
    }) => {
        $(#[doc = $documentation])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name { $($(#[doc = $variant_documentation])* #[serde(rename = $text)] $variant),+ }

        impl $name {
            /// Every value, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name under which it is stored and shown.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// What it means, in a sentence: the text of its doc comment.
            pub fn documentation(self) -> &'static str {
                match self { $(Self::$variant => concat!($($variant_documentation),*).trim_ascii()),+ }
            }
        }

        impl $crate::named::Value for $name {
            const KIND: &'static str = "one of";

            fn choices() -> Vec<(&'static str, &'static str)> {
                Self::ALL.iter().map(|value| (value.as_str(), value.documentation())).collect()
            }

            fn text(&self) -> String {
                self.as_str().to_owned()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::fault::Violation;

            fn from_str(text: &str) -> Result<Self, $crate::fault::Violation> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    other => Err($crate::fault::Violation::new(
                        stringify!($name),
                        format!("`{}` is not one of: {}", other.chars().take(64).collect::<String>(),
                            [$($text),+].join(", ")),
                    )),
                }
            }
        }
    };
}
pub(crate) use named;
