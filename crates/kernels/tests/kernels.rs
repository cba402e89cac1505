//! Every kernel against its plain form.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail loudly")]

use kernels::{
    Buffers, Draw, Rows, Update, adamw, attention_weights, collect, dropout, embedding, gate, layer_norm,
    linear, norm, set_gradient, token_losses,
};
use tch::{Device, Kind, Tensor};

const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);
const DRAW: Draw = Draw { key: 0x0123_4567_89AB_CDEF, place: 3, part: 1 };

/// Numbers between -1 and 1, always the same for a length.
fn numbers(count: i64) -> Tensor {
    (Tensor::arange(count, FLOAT) * 12.9898).sin()
}

fn apart(left: &Tensor, right: &Tensor) -> f64 {
    (left.to_kind(Kind::Double) - right.to_kind(Kind::Double)).abs().max().double_value(&[])
}

#[test]
fn an_update_is_that_of_the_formula() {
    for count in [1, 7, 16, 1000, 100_003] {
        let gradients = numbers(count) * 3.0;
        let (mut weights, mut firsts, mut seconds) =
            (numbers(count).cos(), numbers(count) * 0.1, numbers(count).square() * 0.01);
        let update = Update {
            rate: 0.01,
            weight_decay: 0.1,
            beta_first: 0.9,
            beta_second: 0.999,
            epsilon: 1e-8,
            scale: 0.25,
            step: 3,
        };
        let gradient = &gradients * update.scale;
        let first = &firsts * 0.9 + &gradient * 0.1;
        let second = &seconds * 0.999 + gradient.square() * 0.001;
        let denominator = second.sqrt() / (1.0 - 0.999_f64.powi(3)).sqrt() + 1e-8;
        let weight = &weights * (1.0 - 0.01 * 0.1) - &first / denominator * (0.01 / (1.0 - 0.9_f64.powi(3)));
        let buffers = Buffers {
            weights: &mut weights,
            gradients: &gradients,
            firsts: &mut firsts,
            seconds: &mut seconds,
        };
        adamw(buffers, &update).unwrap();
        for (found, expected) in [(&weights, &weight), (&firsts, &first), (&seconds, &second)] {
            assert!(apart(found, expected) < 2e-7, "{count}: {:e}", apart(found, expected));
        }
    }
}

#[test]
fn a_norm_is_that_of_the_library_and_threads_do_not_matter() {
    for count in [0, 1, 17, 65_536, 200_001] {
        let values = numbers(count);
        let expected = values.to_kind(Kind::Double).norm().double_value(&[]);
        let found: Vec<f64> = [1, 2, 3]
            .into_iter()
            .map(|threads| {
                tch::set_num_threads(threads);
                norm(&values).unwrap()
            })
            .collect();
        assert!((found[0] - expected).abs() < 1e-9 * expected.max(1.0), "{count}: {found:?} {expected}");
        assert_eq!([found[0]; 3], found.as_slice());
    }
    assert!(norm(&(numbers(9) * f64::NAN)).unwrap().is_nan());
}

#[test]
fn buffers_that_do_not_fit_are_refused() {
    let said = norm(&numbers(6).reshape([2, 3])).unwrap_err().to_string();
    assert!(said.contains("one dimension"), "{said}");
    let (mut sum, mut other) = (numbers(6), numbers(5).to_kind(Kind::BFloat16));
    let said = collect(&mut sum, &mut other).unwrap_err().to_string();
    assert!(said.contains("one length"), "{said}");
    let said = set_gradient(&mut sum, &other).unwrap_err().to_string();
    assert!(said.contains("of its weight"), "{said}");
    let said = dropout(&sum, None, 1.0, DRAW).unwrap_err().to_string();
    assert!(said.contains("a dropout rate of 1"), "{said}");
    let said = dropout(&sum, Some(&numbers(5)), 0.5, DRAW).unwrap_err().to_string();
    assert!(said.contains("the shape"), "{said}");
}

#[test]
fn gradients_of_a_pass_are_added_and_forgotten() {
    let mut sum = numbers(1003);
    let mut of_pass = (numbers(1003) * 2.0).to_kind(Kind::BFloat16);
    let expected = &sum + of_pass.to_kind(Kind::Float);
    collect(&mut sum, &mut of_pass).unwrap();
    assert_eq!(apart(&sum, &expected), 0.0);
    assert_eq!(of_pass.abs().max().double_value(&[]), 0.0);
}

#[test]
fn a_gradient_goes_where_it_was_told_to() {
    let place = Tensor::zeros([6], FLOAT);
    let mut weight = numbers(6).set_requires_grad(true);
    set_gradient(&mut weight, &place).unwrap();
    for _ in 0..2 {
        (&weight * 3.0).sum(Kind::Float).backward();
    }
    assert_eq!(Vec::<f32>::try_from(&place).unwrap(), [6.0; 6]);
}

/// The first numbers of Philox 4x32-10 for a key and a counter of nothing, as its authors give them.
#[test]
fn numbers_are_those_of_philox() {
    let known: [u32; 4] = [0x6627_E8D5, 0xE169_C58D, 0xBC57_AC4C, 0x9B00_DBD8];
    let x = Tensor::ones([128], FLOAT);
    let draw = Draw { key: 0, place: 0, part: 0 };
    // Counter 0 gives elements 0, 16, .. 112: the halves of its four words, lower ones first.
    let halves = known.iter().flat_map(|word| [word & 0xFFFF, word >> 16]);
    for (place, half) in halves.enumerate() {
        for (threshold, kept) in [(half, true), (half + 1, false)] {
            let dropped = dropout(&x, None, f64::from(threshold) / 65536.0, draw).unwrap();
            assert_eq!(dropped.double_value(&[place as i64 * 16]) != 0.0, kept, "{place} at {threshold}");
        }
    }
}

#[test]
fn dropout_keeps_the_mean_and_its_backward_is_its_own() {
    for kind in [Kind::Float, Kind::BFloat16] {
        for count in [1_i64, 127, 128, 129, 70_001] {
            let x = (numbers(count) + 2.0).to_kind(kind).set_requires_grad(true);
            let residual = numbers(count).to_kind(kind).set_requires_grad(true);
            let out = dropout(&x, Some(&residual), 0.25, DRAW).unwrap();
            let alone = dropout(&x, None, 0.25, DRAW).unwrap();
            let mask = dropout(&x.ones_like(), None, 0.25, DRAW).unwrap().to_kind(Kind::Float);
            // The rate has 16 bits, and a quarter is exact in them.
            let scale = mask.max().double_value(&[]);
            assert!(count < 8 || (scale - 4.0 / 3.0).abs() < 3e-3, "{scale}");
            let keeps = mask.ne(0.0).to_kind(Kind::Float) * (4.0 / 3.0);
            let tolerance = if kind == Kind::Float { 1e-6 } else { 0.02 };
            let expected = x.to_kind(Kind::Float) * &keeps;
            assert!(apart(&alone, &expected) < tolerance);
            assert!(apart(&out, &(&expected + residual.to_kind(Kind::Float))) < tolerance);
            let weight = numbers(count).to_kind(kind);
            (&out * &weight).sum(Kind::Float).backward();
            assert!(apart(&x.grad(), &(weight.to_kind(Kind::Float) * &keeps)) < tolerance);
            assert_eq!(apart(&residual.grad(), &weight), 0.0);
        }
    }
}

#[test]
fn as_many_fall_as_are_said_to_and_every_draw_is_its_own() {
    let x = Tensor::ones([1 << 20], FLOAT);
    let drawn = |draw: Draw| dropout(&x, None, 0.1, draw).unwrap().ne(0.0);
    let first = drawn(DRAW);
    let share = |mask: &Tensor| mask.to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
    assert!((share(&first) - 0.9).abs() < 1.5e-3, "{}", share(&first));
    let others = [Draw { key: 1, ..DRAW }, Draw { place: 4, ..DRAW }, Draw { part: 2, ..DRAW }].map(drawn);
    for other in others {
        // Two masks that know nothing of each other agree in 0.9^2 + 0.1^2 of all places.
        let agree = share(&first.eq_tensor(&other));
        assert!((agree - 0.82).abs() < 2e-3, "{agree}");
    }
    for threads in [1, 2, 3] {
        tch::set_num_threads(threads);
        assert!(first.equal(&drawn(DRAW)));
    }
}

#[test]
fn memory_that_is_kept_holds_what_the_next_tensor_writes() {
    let kept = kernels::KeptMemory::new();
    for round in 0..4 {
        let tensors: Vec<Tensor> =
            (1..9).map(|size| Tensor::full([size * 70_001], size + round, FLOAT)).collect();
        for (size, tensor) in (1..9).zip(&tensors) {
            assert_eq!(tensor.sum(Kind::Double).double_value(&[]), ((size + round) * size * 70_001) as f64);
        }
    }
    // A tensor that lives on after it.
    let left = Tensor::ones([100_000], FLOAT);
    drop(kept);
    assert_eq!(left.sum(Kind::Double).double_value(&[]), 100_000.0);
    let again = kernels::KeptMemory::new();
    drop(left);
    assert_eq!(Tensor::zeros([100_000], FLOAT).max().double_value(&[]), 0.0);
    // Too much stays an error, not an abort.
    assert!(Tensor::f_zeros([1 << 50], FLOAT).is_err());
    drop(again);
}

/// The kernel's and the plain form's results and gradients, as close as the number format lets them be.
fn check(
    kind: Kind,
    inputs: &[Tensor],
    kernel: &dyn Fn(&[Tensor]) -> Tensor,
    plain: &dyn Fn(&[Tensor]) -> Tensor,
) {
    let run = |operation: &dyn Fn(&[Tensor]) -> Tensor| {
        let inputs: Vec<Tensor> =
            inputs.iter().map(|input| input.detach().copy().set_requires_grad(true)).collect();
        let out = operation(&inputs);
        let slopes = (numbers(out.numel() as i64) * 0.7).reshape(out.size()).to_kind(out.kind());
        (&out * slopes).sum(Kind::Float).backward();
        let mut results = vec![out.detach()];
        results.extend(inputs.iter().map(Tensor::grad));
        results
    };
    let tolerance = if kind == Kind::Float { 3e-6 } else { 2e-2 };
    for (found, expected) in run(kernel).iter().zip(run(plain)) {
        assert_eq!((found.size(), found.kind()), (expected.size(), expected.kind()));
        let largest = expected.abs().max().double_value(&[]).max(1.0);
        let apart = apart(found, &expected);
        assert!(apart < tolerance * largest, "{kind:?} {:?}: {apart:e} of {largest}", found.size());
    }
}

#[test]
fn a_layer_norm_is_that_of_the_formula() {
    for kind in [Kind::Float, Kind::BFloat16] {
        for (rows, width) in [(1, 1), (3, 7), (5, 16), (67, 64), (130, 519)] {
            let x = (numbers(rows * width) * 3.0).reshape([1, rows, width]).to_kind(kind);
            let weight = numbers(width) + 1.5;
            check(
                kind,
                &[x, weight],
                &|inputs| layer_norm(&inputs[0], &inputs[1], 1e-6).unwrap(),
                &|inputs| {
                    let x = inputs[0].to_kind(Kind::Float);
                    let scale = (x.square().mean_dim(&[-1_i64][..], true, Kind::Float) + 1e-6).rsqrt();
                    (x * scale * &inputs[1]).to_kind(kind)
                },
            );
        }
    }
    let said = layer_norm(&numbers(6).reshape([2, 3]), &numbers(2), 1e-6).unwrap_err().to_string();
    assert!(said.contains("as long as the rows"), "{said}");
}

#[test]
fn a_gate_is_that_of_the_library() {
    for kind in [Kind::Float, Kind::BFloat16] {
        for (rows, width) in [(1, 1), (3, 7), (67, 64), (130, 519)] {
            let wide = (numbers(rows * 2 * width) * 6.0).reshape([rows, 2 * width]).to_kind(kind);
            check(kind, &[wide], &|inputs| gate(&inputs[0]).unwrap(), &|inputs| {
                let width = inputs[0].size()[1] / 2;
                inputs[0].narrow(-1, 0, width).gelu("tanh") * inputs[0].narrow(-1, width, width)
            });
        }
    }
    // Far out it is nothing, or the number itself; a number that is none stays none.
    let far = Tensor::from_slice(&[-1e30_f32, 1e30, f32::NAN, 1.0, 1.0, 1.0]);
    let far = Vec::<f32>::try_from(gate(&far).unwrap()).unwrap();
    assert!(far[0].abs() < 1e-6 && far[1] == 1e30 && far[2].is_nan(), "{far:?}");
    assert!(gate(&numbers(3)).unwrap_err().to_string().contains("two halves"));
}

#[test]
fn losses_of_tokens_are_those_of_the_library() {
    for kind in [Kind::Float, Kind::BFloat16] {
        for (rows, width) in [(1, 1), (3, 7), (5, 16), (67, 519), (2, 32_128)] {
            let logits = (numbers(rows * width) * 9.0).reshape([rows, width]).to_kind(kind);
            let targets = (Tensor::arange(rows, (Kind::Int64, Device::Cpu)) * 7_919).remainder(width);
            check(kind, &[logits], &|inputs| token_losses(&inputs[0], &targets).unwrap(), &|inputs| {
                let logits = inputs[0].to_kind(Kind::Float);
                logits.cross_entropy_loss(&targets, None::<&Tensor>, tch::Reduction::None, -100, 0.0)
            });
        }
    }
    // Far apart, infinite and no number.
    let logits = Tensor::from_slice(&[-1e30_f32, 1e30, 0.0, f32::INFINITY, 0.0, f32::NAN]).reshape([3, 2]);
    let losses =
        Vec::<f32>::try_from(token_losses(&logits, &Tensor::from_slice(&[1_i64, 0, 0])).unwrap()).unwrap();
    assert!(losses[0] == 0.0 && losses[1].is_nan() && losses[2].is_nan(), "{losses:?}");
    for target in [-1_i64, 2] {
        let said = token_losses(&numbers(2).reshape([1, 2]), &Tensor::from_slice(&[target]))
            .unwrap_err()
            .to_string();
        assert!(said.contains(&format!("a target of {target} among 2 logits")), "{said}");
    }
    let said =
        token_losses(&numbers(2).reshape([1, 2]), &Tensor::from_slice(&[0_i64, 1])).unwrap_err().to_string();
    assert!(said.contains("each row of logits needs a target"), "{said}");
}

#[test]
fn weights_of_attention_are_those_of_the_library_and_threads_do_not_matter() {
    for kind in [Kind::Float, Kind::BFloat16] {
        for [rows, heads, queries, keys] in [[1, 1, 1, 1], [3, 2, 5, 7], [4, 6, 33, 64]] {
            let scores = (numbers(rows * heads * queries * keys) * 4.0)
                .reshape([rows, heads, queries, keys])
                .to_kind(kind);
            let bias = numbers(heads * queries * keys).reshape([1, heads, queries, keys]);
            // The last keys of every row but the first are hidden, or of every query those behind it.
            let places = Tensor::arange(keys, FLOAT);
            let ends = (Tensor::arange(rows, FLOAT) + 1.0).view([rows, 1, 1, 1]);
            let of_rows = places.ge_tensor(&ends).to_kind(Kind::Float) * -1e9;
            let of_queries = Tensor::full([queries, keys], -1e9, FLOAT).triu(1).view([1, 1, queries, keys]);
            for mask in [&of_rows, &of_queries] {
                for threads in [1, 2] {
                    tch::set_num_threads(threads);
                    check(
                        kind,
                        &[scores.shallow_clone(), bias.shallow_clone()],
                        &|inputs| attention_weights(&inputs[0], Some(&inputs[1]), Some(mask)).unwrap(),
                        &|inputs| {
                            (inputs[0].to_kind(Kind::Float) + &inputs[1] + mask)
                                .softmax(-1, Kind::Float)
                                .to_kind(kind)
                        },
                    );
                }
            }
            check(kind, &[scores], &|inputs| attention_weights(&inputs[0], None, None).unwrap(), &|inputs| {
                inputs[0].to_kind(Kind::Float).softmax(-1, Kind::Float).to_kind(kind)
            });
        }
    }
    let scores = numbers(24).reshape([2, 1, 3, 4]);
    let said = attention_weights(&scores, Some(&scores), None).unwrap_err().to_string();
    assert!(said.contains("a position bias must be"), "{said}");
    let said = attention_weights(&scores, None, Some(&scores)).unwrap_err().to_string();
    assert!(said.contains("a mask must be"), "{said}");
}

/// Gradients of a weight with a place for them go there, added to what is there; those without are returned.
#[test]
fn projections_and_embeddings_are_those_of_the_library() {
    for kind in [Kind::Float, Kind::BFloat16] {
        for (tokens, into, out) in [(1, 1, 1), (3, 7, 5), (64, 48, 130)] {
            let x = numbers(tokens * into).reshape([tokens, into]).to_kind(kind);
            let weight = (numbers(out * into) * 0.5).reshape([out, into]).to_kind(kind);
            let plain = |inputs: &[Tensor]| inputs[0].linear(&inputs[1], None::<&Tensor>);
            check(
                kind,
                &[x.shallow_clone(), weight.shallow_clone()],
                &|inputs| linear(&inputs[0], &inputs[1]).unwrap(),
                &plain,
            );
            check(
                kind,
                &[x, weight],
                &|inputs| {
                    let mut weight = inputs[1].shallow_clone();
                    let place = weight.detach().zeros_like();
                    set_gradient(&mut weight, &place).unwrap();
                    linear(&inputs[0], &weight).unwrap()
                },
                &plain,
            );
        }
        let table = numbers(9 * 5).reshape([9, 5]).to_kind(kind);
        let ids = Tensor::from_slice(&[3_i64, 8, 3, 0, 3]);
        let plain = |inputs: &[Tensor]| Tensor::embedding(&inputs[0], &ids, -1, false, false);
        check(kind, &[table.shallow_clone()], &|inputs| embedding(&inputs[0], &ids).unwrap(), &plain);
        for threads in [1, 2] {
            tch::set_num_threads(threads);
            let kernel = |inputs: &[Tensor]| {
                let mut weight = inputs[0].shallow_clone();
                let place = weight.detach().zeros_like();
                set_gradient(&mut weight, &place).unwrap();
                embedding(&weight, &ids).unwrap()
            };
            check(kind, &[table.shallow_clone()], &kernel, &plain);
        }
    }
    let said = linear(&numbers(6).reshape([2, 3]), &numbers(8).reshape([4, 2])).unwrap_err().to_string();
    assert!(said.contains("a projection of"), "{said}");
    let said = embedding(&numbers(6).reshape([2, 3]), &Tensor::from_slice(&[2_i64])).unwrap_err().to_string();
    assert!(said.contains("out of range"), "{said}");
}

/// Tokens as `[rows, heads, width, size]` for each part, of the library's operators.
fn spread_plainly(tokens: &Tensor, lengths: &[i64], parts: i64, heads: i64) -> Vec<Tensor> {
    let width = lengths.iter().copied().max().unwrap();
    let mut rows = Vec::new();
    let mut start = 0;
    for length in lengths {
        rows.push(tokens.narrow(0, start, *length).constant_pad_nd([0, 0, 0, width - length]));
        start += length;
    }
    let all = Tensor::stack(&rows, 0).reshape([lengths.len() as i64, width, parts, heads, -1]);
    (0..parts).map(|part| all.select(2, part).transpose(1, 2)).collect()
}

#[test]
fn rows_are_spread_and_gathered_and_so_are_their_gradients() {
    for (lengths, heads, size) in [(vec![1], 1, 1), (vec![3, 1, 7], 2, 5), (vec![64, 9, 33, 64], 6, 64)] {
        for kind in [Kind::Float, Kind::BFloat16] {
            for threads in [1, 2] {
                tch::set_num_threads(threads);
                let rows = Rows::new(lengths.clone()).unwrap();
                let count: i64 = lengths.iter().sum();
                let given = || {
                    let tokens = numbers(count * 3 * heads * size).reshape([count, 3 * heads * size]);
                    tokens.to_kind(kind).set_requires_grad(true)
                };
                // One part is not used, and one is used through another: their gradients meet.
                let weigh = |query: &Tensor, value: &Tensor| {
                    let factors = numbers(query.numel() as i64).view(query.size().as_slice()).to_kind(kind);
                    (query * &factors + value * 2.0 * query).sum(Kind::Float)
                };
                let (fast, plain) = (given(), given());
                let [query, key, value] = rows.spread(&fast, heads).unwrap();
                let expected = spread_plainly(&plain, &lengths, 3, heads);
                for (found, expected) in [&query, &key, &value].into_iter().zip(&expected) {
                    assert_eq!(found.size(), expected.size());
                    assert_eq!(apart(found, expected), 0.0, "{lengths:?} {kind:?}");
                }
                weigh(&query, &value).backward();
                weigh(&expected[0], &expected[2]).backward();
                assert_eq!(apart(&fast.grad(), &plain.grad()), 0.0, "{lengths:?} {kind:?}");

                let (fast, plain) = (query.detach().set_requires_grad(true), query.detach());
                let gathered = rows.gather(&fast).unwrap();
                let tokens = given().detach().narrow(1, 0, heads * size);
                assert_eq!(apart(&gathered, &tokens), 0.0, "there and back");
                (&gathered * &tokens).sum(Kind::Float).backward();
                assert_eq!(
                    apart(&fast.grad(), &plain),
                    0.0,
                    "a gradient lies where its token does, and none behind a row"
                );
            }
        }
    }
    // Tokens that belong to no row are not looked at, and come back as nothing; places behind the longest row are nothing.
    let rows = Rows::new(vec![2, 3]).unwrap().rounded(8, 4);
    assert_eq!((rows.filling(), rows.width()), (3, 4));
    let tokens = numbers(32).reshape([8, 4]).set_requires_grad(true);
    let [padded] = rows.spread(&tokens, 2).unwrap();
    let [expected] = Rows::new(vec![2, 3]).unwrap().spread(&tokens.detach().narrow(0, 0, 5), 2).unwrap();
    assert_eq!(apart(&padded, &expected.constant_pad_nd([0, 0, 0, 1])), 0.0);
    let gathered = rows.gather(&padded).unwrap();
    assert_eq!(apart(&gathered, &tokens.detach().narrow(0, 0, 5).constant_pad_nd([0, 0, 0, 3])), 0.0);
    gathered.sum(Kind::Float).backward();
    assert_eq!(
        tokens.grad().sum_dim_intlist(&[1_i64][..], false, Kind::Float),
        Tensor::from_slice(&[4.0_f32, 4.0, 4.0, 4.0, 4.0, 0.0, 0.0, 0.0])
    );

    let rows = Rows::new(vec![2, 3]).unwrap();
    for tokens in [numbers(24).reshape([4, 6]), numbers(35).reshape([5, 7]), numbers(30)] {
        let said = rows.spread::<3>(&tokens, 2).unwrap_err().to_string();
        assert!(said.contains("as many as the rows have"), "{said}");
    }
    let said = rows.gather(&numbers(24).reshape([2, 2, 2, 3])).unwrap_err().to_string();
    assert!(said.contains("[rows, heads, width, size]"), "{said}");
    assert!(Rows::new(vec![2, 0]).is_none() && Rows::new(vec![]).is_none());
}
