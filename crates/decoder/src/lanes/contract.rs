//! What vectors of every kind can do.

/// Lanes of one vector.
pub(crate) const LANES: usize = 16;

/// Sixteen float32 numbers.
pub(crate) trait Lanes: Copy {
    /// The same number in every lane.
    fn splat(value: f32) -> Self;
    /// Reads.
    fn load(values: &[f32; LANES]) -> Self;
    /// Writes.
    fn store(self, out: &mut [f32; LANES]);
    /// `self + other`.
    fn add(self, other: Self) -> Self;
    /// `self - other`.
    fn subtract(self, other: Self) -> Self;
    /// `self * other`.
    fn multiply(self, other: Self) -> Self;
    /// `self / other`.
    fn divide(self, other: Self) -> Self;
    /// `self * factor + summand`, rounded once.
    fn fused(self, factor: Self, summand: Self) -> Self;
    /// The larger one; `other` where one of them is not a number.
    fn larger(self, other: Self) -> Self;
    /// The smaller one; `other` where one of them is not a number.
    fn smaller(self, other: Self) -> Self;
    /// Without the sign.
    fn magnitude(self) -> Self;
    /// The nearest whole number, ties to even.
    fn rounded(self) -> Self;
    /// 2 to the power of these whole numbers from -126 to 127.
    fn power_of_two(self) -> Self;
    /// The sum of the lanes: halves are added onto each other until one number is left.
    fn total(self) -> f32;
    /// The largest lane.
    fn largest(self) -> f32;
    /// Integers, each rounded to the nearest float32.
    fn of_integers(values: &[i32; LANES]) -> Self;
    /// Pairs of bfloat16 numbers: those of the low halves, and those of the high halves.
    fn of_pairs(values: &[u32; LANES]) -> (Self, Self);
    /// The first `count` lanes; `other` in the rest.
    fn keep_first(self, count: usize, other: f32) -> Self;
    /// Whole numbers from -127 to 127, plus 128.
    fn store_bytes(self, out: &mut [u8; LANES]);
    /// Whole numbers from -32,767 to 32,767, plus 32,768: high bytes and low bytes.
    fn store_words(self, high: &mut [u8; LANES], low: &mut [u8; LANES]);

    /// e to the power of the lanes; below -87 and above 88 as there. Not a number stays so.
    #[inline(always)]
    fn exponential(self) -> Self {
        let bounded = Self::splat(-87.0).larger(Self::splat(88.0).smaller(self));
        let scaled = bounded.multiply(Self::splat(std::f32::consts::LOG2_E));
        let whole = scaled.rounded();
        let part = scaled.subtract(whole);
        let mut power = Self::splat(1.540_353e-4);
        for coefficient in
            [1.333_355_8e-3, 9.618_129e-3, 5.550_411e-2, 2.402_265e-1, std::f32::consts::LN_2, 1.0]
        {
            power = power.fused(part, Self::splat(coefficient));
        }
        power.multiply(whole.power_of_two())
    }
}
