//! Integer products: sums of unsigned activations times signed weights, by instruction set. Every tile gives the same sums.
//!
//! Weights lie in panels of 16 columns: `[columns / 16][depth / 4][16][4]`. Four neighbouring summands of one column are one
//! 32-bit lane, as `vpdpbusd` reads them; 16 such rows are one tile of AMX. Activations are `[rows][depth]`, plus 128.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
mod operands;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod vnni;

pub(crate) use operands::{DEPTH_UNIT, Operands, PANEL, PANELS, ROWS, STRIDE};

/// From so many rows on, AMX is faster than AVX-512.
#[cfg(target_arch = "x86_64")]
const AMX_ROWS_MIN: usize = 5;

/// Which instructions compute integer products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tile {
    /// Any machine.
    Scalar,
    /// AVX2.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 VNNI.
    #[cfg(target_arch = "x86_64")]
    Vnni,
    /// AMX for several rows, AVX-512 VNNI for few.
    #[cfg(target_arch = "x86_64")]
    Amx,
}

impl Tile {
    /// Every tile that this machine has, the fastest last.
    pub fn available() -> Vec<Self> {
        #[cfg_attr(not(target_arch = "x86_64"), allow(unused_mut, reason = "other machines have one tile"))]
        let mut tiles = vec![Self::Scalar];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                tiles.push(Self::Avx2);
            }
            let vnni = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni");
            if vnni {
                tiles.push(Self::Vnni);
            }
            if vnni && amx::available() {
                tiles.push(Self::Amx);
            }
        }
        tiles
    }

    /// The fastest that this machine has.
    pub fn detect() -> Self {
        Self::available().last().copied().unwrap_or(Self::Scalar)
    }

    /// Prepares this thread; [`Tile::end`] undoes it.
    pub(crate) fn begin(self) {
        #[cfg(target_arch = "x86_64")]
        if self == Self::Amx {
            amx::begin();
        }
    }

    /// Gives back what [`Tile::begin`] took.
    pub(crate) fn end(self) {
        #[cfg(target_arch = "x86_64")]
        if self == Self::Amx {
            amx::end();
        }
    }

    /// `sums[row * STRIDE + column]`, for every row and every column of the panels.
    ///
    /// Call it between `begin` and `end`, with a tile that is available.
    pub(crate) fn sums(self, operands: &Operands<'_>, sums: &mut [i32]) {
        assert!(operands.fit(sums), "operands that do not fit a tile");
        match self {
            Self::Scalar => scalar::sums(operands, sums),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => avx2::sums(operands, sums),
            #[cfg(target_arch = "x86_64")]
            Self::Amx if operands.rows >= AMX_ROWS_MIN => amx::sums(operands, sums),
            #[cfg(target_arch = "x86_64")]
            Self::Vnni | Self::Amx => vnni::sums(operands, sums),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn every_tile_has_the_sums_of_the_scalar_one(
            rows in 1..=ROWS,
            panels in 1..=PANELS,
            units in 1..=9_usize,
            seed in any::<u64>(),
            extreme in any::<bool>(),
        ) {
            let depth = units * DEPTH_UNIT;
            let mut state = seed;
            let mut next = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let byte = (state >> 56) as u8;
                if extreme { if byte & 1 == 0 { 0x80 } else { 0xff } } else { byte }
            };
            let weights: Vec<u8> = (0..panels * PANEL * depth).map(|_| next()).collect();
            let activations: Vec<u8> = (0..ROWS * depth).map(|_| next()).collect();
            let operands = Operands { weights: &weights, depth, activations: &activations, rows };
            let mut expected = vec![0; ROWS * STRIDE];
            Tile::Scalar.sums(&operands, &mut expected);
            for tile in Tile::available() {
                let mut found = vec![0; ROWS * STRIDE];
                tile.begin();
                tile.sums(&operands, &mut found);
                tile.end();
                for row in 0..rows {
                    let columns = row * STRIDE..row * STRIDE + panels * PANEL;
                    prop_assert_eq!(&found[columns.clone()], &expected[columns], "{:?}, row {}", tile, row);
                }
            }
        }
    }
}
