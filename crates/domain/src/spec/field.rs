//! The table form of settings: a field is written once, with its type, default, range and documentation.
//!
//! From one table come the resolved struct, the struct with holes that a user fills, the default of each hole, the checks
//! of ranges, the documentation, and a macro that lists the fields for conversions in other crates.

use crate::fault::Violation;

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its key within its section.
    pub key: &'static str,
    /// What it means.
    pub documentation: &'static str,
    /// The kind of its value.
    pub kind: &'static str,
    /// The values of an enumeration, each with its documentation.
    pub choices: fn() -> Vec<(&'static str, &'static str)>,
    /// The least and the greatest value.
    pub range: Option<(f64, f64)>,
}

/// The settings under one heading.
#[derive(Debug, Clone, Copy)]
pub struct Section {
    /// The heading, such as `training`.
    pub name: &'static str,
    /// What it is about.
    pub documentation: &'static str,
    /// Its settings, in order.
    pub fields: &'static [Field],
}

/// A violation where the number lies outside its range.
pub(crate) fn check_range(field: &str, value: Option<f64>, low: f64, high: f64) -> Option<Violation> {
    // A NaN lies in no range.
    let outside = value.filter(|value| !(*value >= low && *value <= high))?;
    Some(Violation::new(field, format!("is {outside}: it must lie between {low} and {high}")))
}

/// The documentation of a table's fields, its name and its list.
macro_rules! table {
    (
        $name:ident, $section:literal, $list:ident, $documentation:expr, ($dollar:tt),
        { $($field:ident: $type:ty, $field_documentation:expr, $range:expr;)+ }
    ) => {
        impl $name {
            /// The table of its fields.
            pub const SECTION: $crate::spec::field::Section = $crate::spec::field::Section {
                name: $section,
                documentation: $documentation,
                fields: &[$($crate::spec::field::Field {
                    key: stringify!($field),
                    documentation: $field_documentation,
                    kind: <$type as $crate::named::Value>::KIND,
                    choices: <$type as $crate::named::Value>::choices,
                    range: $range,
                }),+],
            };

            /// These settings, with those of `other` in the holes.
            #[must_use]
            pub fn or(self, other: Self) -> Self {
                Self { $($field: self.$field.or(other.$field)),+ }
            }

            /// Every field that is given, as text under its key.
            pub fn given(&self) -> Vec<(&'static str, String)> {
                let mut given = Vec::new();
                $(if let Some(value) = &self.$field {
                    given.push((stringify!($field), $crate::named::Value::text(value)));
                })+
                given
            }
        }

        /// Calls a macro with tokens of the caller and the fields of the section, for conversions.
        #[macro_export]
        macro_rules! $list {
            ($dollar callback:ident $dollar ($dollar tokens:tt)*) => {
                $dollar callback! { [$dollar ($dollar tokens)*] $($field)+ }
            };
        }
    };
}

/// A section whose fields may all be absent, also once it is resolved.
macro_rules! options {
    (
        $(#[doc = $documentation:literal])+
        $section:literal: $name:ident, listed by $list:ident {
            $($(#[doc = $field_documentation:literal])+ $field:ident: $type:ty $(, in $low:literal ..= $high:literal)?;)+
        }
    ) => {
        $(#[doc = $documentation])+
        #[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
        pub struct $name {
            $($(#[doc = $field_documentation])+ pub $field: Option<$type>,)+
        }

        $crate::spec::field::table! {
            $name, $section, $list, concat!($($documentation, "\n"),+), ($),
            { $($field: $type, concat!($($field_documentation, "\n"),+), $crate::spec::field::range!($($low, $high)?);)+ }
        }

        impl $name {
            /// Every value outside its range.
            pub(crate) fn check(&self) -> Vec<$crate::Violation> {
                let checks: Vec<Option<$crate::Violation>> = vec![$($($crate::spec::field::check_range(
                    concat!($section, ".", stringify!($field)),
                    self.$field.as_ref().and_then($crate::named::Value::number),
                    $low,
                    $high,
                ),)?)+];
                checks.into_iter().flatten().collect()
            }
        }
    };
}

/// A section whose holes have defaults. A default may name the context and the fields above its own.
macro_rules! section {
    (
        $(#[doc = $documentation:literal])+
        $section:literal: $spec:ident $({ $(#[doc = $own_documentation:literal])+ $own:ident: $own_type:ty })?
        from $draft:ident $({ $(#[doc = $typed_documentation:literal])+ $typed:ident: $typed_type:ty })?,
        listed by $list:ident, with $context:ident: $context_type:ty {
            $(
                $(#[doc = $field_documentation:literal])+
                $kind:ident $field:ident: $type:ty = $default:expr $(, in $low:literal ..= $high:literal)?;
            )+
        }
    ) => {
        $(#[doc = $documentation])+
        #[derive(Debug, Clone, PartialEq, serde::Serialize)]
        pub struct $spec {
            $($(#[doc = $own_documentation])+ pub $own: $own_type,)?
            $($(#[doc = $field_documentation])+ pub $field: $crate::spec::field::resolved!($kind $type),)+
        }

        #[doc = concat!("[`", stringify!($spec), "`] with holes, as a user writes it.")]
        #[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
        pub struct $draft {
            $($(#[doc = $typed_documentation])+ pub $typed: Option<$typed_type>,)?
            $($(#[doc = $field_documentation])+ pub $field: Option<$type>,)+
        }

        $crate::spec::field::table! {
            $draft, $section, $list, concat!($($documentation, "\n"),+), ($), {
                $($typed: $typed_type, concat!($($typed_documentation, "\n"),+), None;)?
                $($field: $type, concat!($($field_documentation, "\n"),+), $crate::spec::field::range!($($low, $high)?);)+
            }
        }

        impl $draft {
            /// Fills every hole with its default.
            pub(crate) fn fill(self, $context: $context_type, $($own: $own_type)?) -> $spec {
                $(let $field = $crate::spec::field::filled!($kind self.$field, $default);)+
                $spec { $($own,)? $($field),+ }
            }
        }

        impl $spec {
            /// Every value outside its range.
            pub(crate) fn check(&self) -> Vec<$crate::Violation> {
                let checks: Vec<Option<$crate::Violation>> = vec![$($($crate::spec::field::check_range(
                    concat!($section, ".", stringify!($field)),
                    $crate::spec::field::given!($kind &self.$field).and_then($crate::named::Value::number),
                    $low,
                    $high,
                ),)?)+];
                checks.into_iter().flatten().collect()
            }
        }

        impl From<$spec> for $draft {
            fn from(spec: $spec) -> Self {
                Self {
                    $($typed: None,)?
                    $($field: $crate::spec::field::hole!($kind spec.$field)),+
                }
            }
        }
    };
}

/// The type of a resolved field.
macro_rules! resolved {
    (required $type:ty) => { $type };
    (optional $type:ty) => { Option<$type> };
}

/// A hole, filled.
macro_rules! filled {
    (required $hole:expr, $default:expr) => {
        $hole.unwrap_or_else(|| $default)
    };
    (optional $hole:expr, $default:expr) => {
        $hole.or_else(|| $default)
    };
}

/// A resolved field as a hole.
macro_rules! hole {
    (required $value:expr) => {
        Some($value)
    };
    (optional $value:expr) => {
        $value
    };
}

/// A reference to a resolved field, where it has a value.
macro_rules! given {
    (required $value:expr) => {
        Some($value)
    };
    (optional $value:expr) => {
        ($value).as_ref()
    };
}

/// The range of a field.
macro_rules! range {
    () => {
        None
    };
    ($low:literal, $high:literal) => {
        Some(($low, $high))
    };
}

pub(crate) use {filled, given, hole, options, range, resolved, section, table};
