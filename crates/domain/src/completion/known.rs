//! A label among those that are known.

use crate::label::normalise;

/// `label` as the set writes it; an identical text goes before one that is equal after normalisation.
pub(super) fn canonical<'a>(set: &'a [String], label: &str) -> Option<&'a String> {
    let normal = normalise(label);
    let identical = set.iter().find(|known| *known == label);
    identical.or_else(|| set.iter().find(|known| normalise(known) == normal))
}
