//! Enumerations with a name for each value: how the value is stored, shown and typed.

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
