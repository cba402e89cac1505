//! Whatever a caller sends to any method, random bytes or random messages of the right kind, it is told what is wrong with
//! it: no internal error, no panic, and the server keeps serving.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly too"
)]

mod common;

use app::serve::Roles;
use common::{Server, call, publish, served};
use proptest::collection::vec;
use proptest::prelude::any;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config as Cases, TestRunner};
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor,
    ReflectMessage, Value,
};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::sync::atomic::{AtomicUsize, Ordering};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use wire::{Channel, v1};

/// Calls of each kind to each method.
const CASES: usize = 60;
/// How deep messages nest.
const DEPTH: usize = 4;

static PANICS: AtomicUsize = AtomicUsize::new(0);

/// Ids and names that are there, so that messages reach what is behind the first look-up.
#[derive(Debug, Default)]
struct Known {
    texts: Vec<String>,
    /// A job that is accepted.
    submit: Vec<u8>,
}

/// What is there once a student is published; the words of the protocols too.
async fn known(channel: &Channel) -> Known {
    let row = |text: &str, label: &str| v1::Example {
        input: text.to_owned(),
        label: Some(label.to_owned()),
        ..Default::default()
    };
    let rows = vec![row("a good film", "good"), row("a bad film", "bad"), row("good, good", "good")];
    let published = publish(channel, "generate", rows).await;
    let model = published.model;
    let texts =
        vec![published.submit.dataset_id.clone(), model.distillation_id, model.run_id, model.id, model.name];
    let words = ["rows", "input", "choices", "BYTES", "FP64", "label", "rationale", "1"].map(str::to_owned);
    let submit = prost::Message::encode_to_vec(&published.submit);
    Known { texts: texts.into_iter().chain(words).collect(), submit }
}

fn text(random: &mut StdRng, known: &Known) -> String {
    match random.random_range(0..10) {
        0..4 => known.texts.choose(random).cloned().unwrap_or_default(),
        4 => String::new(),
        5 => uuid::Uuid::from_u128(random.random()).to_string(),
        6 => "x".repeat(random.random_range(1..20_000)),
        7 => ["../..", "a\0b", "row-1", "none", "{{ x }}", "\u{202e}\u{fffd}", "2026-01-01", "NaN"]
            .choose(random)
            .map_or_else(String::new, |text| (*text).to_owned()),
        _ => (0..random.random_range(1..40)).map(|_| random.random::<char>()).collect(),
    }
}

fn number(random: &mut StdRng) -> u64 {
    match random.random_range(0..6) {
        0 => u64::MAX,
        1 => i64::MAX as u64,
        2 => u64::from(u32::MAX),
        3 => random.random(),
        _ => random.random_range(0..20),
    }
}

fn value(random: &mut StdRng, known: &Known, kind: &Kind, depth: usize) -> Value {
    match kind {
        Kind::Double => {
            let edge = [0.0, -1.0, f64::NAN, f64::INFINITY, 1e300, 0.5];
            Value::F64(edge.choose(random).copied().unwrap_or(0.5))
        }
        Kind::Float => Value::F32(random.random()),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(number(random) as i32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(number(random) as i64),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(number(random) as u32),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(number(random)),
        Kind::Bool => Value::Bool(random.random()),
        Kind::String => Value::String(text(random, known)),
        Kind::Bytes => Value::Bytes(vec![random.random(); random.random_range(0..40)].into()),
        Kind::Enum(_) => Value::EnumNumber(random.random_range(-2..14)),
        Kind::Message(message) => Value::Message(message_of(random, known, message, depth + 1)),
    }
}

fn message_of(
    random: &mut StdRng,
    known: &Known,
    descriptor: &MessageDescriptor,
    depth: usize,
) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    let fields: Vec<FieldDescriptor> = descriptor.fields().collect();
    for field in fields {
        if random.random_bool(0.25) || (depth >= DEPTH && matches!(field.kind(), Kind::Message(_))) {
            continue;
        }
        let one = |random: &mut StdRng| match field.name() {
            // A student that writes for long tells nothing more, and takes its time.
            "tokens_max" => Value::U32(random.random_range(1..4)),
            _ => value(random, known, &field.kind(), depth),
        };
        let filled = if field.is_list() {
            Value::List((0..random.random_range(0..4)).map(|_| one(random)).collect())
        } else {
            one(random)
        };
        message.set_field(&field, filled);
    }
    message
}

/// Changes one field of `message`, or of a message in it.
fn change(random: &mut StdRng, known: &Known, message: &mut DynamicMessage, depth: usize) {
    let fields: Vec<FieldDescriptor> = message.descriptor().fields().collect();
    let Some(field) = fields.choose(random) else { return };
    if let (Kind::Message(_), false, true) = (field.kind(), field.is_list(), message.has_field(field))
        && let Some(inner) = message.get_field_mut(field).as_message_mut()
    {
        return change(random, known, inner, depth + 1);
    }
    let one = |random: &mut StdRng| value(random, known, &field.kind(), depth);
    let changed = if field.is_list() { Value::List(vec![one(random), one(random)]) } else { one(random) };
    message.set_field(field, changed);
}

/// Messages for a method: random ones, or one that would be accepted with something changed.
fn messages(random: &mut StdRng, known: &Known, method: &MethodDescriptor) -> Vec<DynamicMessage> {
    if method.name() == "SubmitDistillation" && random.random_bool(0.8) {
        let mut message = DynamicMessage::decode(method.input(), known.submit.as_slice()).unwrap();
        for _ in 0..random.random_range(1..4) {
            change(random, known, &mut message, 0);
        }
        return vec![message];
    }
    let count = if method.is_client_streaming() { 3 } else { 1 };
    (0..count).map(|_| message_of(random, known, &method.input(), 0)).collect()
}

/// What is wrong with an answer; nothing where it is one that a caller can do something about.
fn fault(method: &MethodDescriptor, sent: &str, answer: Result<Vec<Vec<u8>>, Status>) -> Option<String> {
    let status = answer.err()?;
    let ours = [
        Code::Internal,
        Code::Unknown,
        Code::DataLoss,
        Code::Unavailable,
        Code::Cancelled,
        Code::Unimplemented,
        Code::Unauthenticated,
    ];
    let wrong = ours.contains(&status.code()) || status.message().is_empty();
    wrong.then(|| format!("{}: {status:?} after {sent}", method.full_name()))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_message_is_an_internal_error_or_a_panic() {
    let printed = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::SeqCst);
        printed(info);
    }));
    let all = Roles { harvester: true, trainer: true, inference: true };
    let first = Server::start(all, |config, _| config.harvester.workers = 1).await;
    let known = known(&first.channel(|_| {}).await.unwrap()).await;
    let data = first.folder.path().join("data");
    let first = first.halt().await.unwrap();
    // Whatever is accepted now is not carried out.
    let serves = Roles { harvester: true, trainer: false, inference: true };
    let server = Server::start(serves, |config, _| config.data_dir = data).await;
    let channel = server.channel(|_| {}).await.unwrap();
    served(&channel).await;
    let pool = DescriptorPool::decode(wire::DESCRIPTORS).unwrap();
    let mut methods: Vec<MethodDescriptor> =
        pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()).collect();
    // What is deleted cannot be reached any more.
    methods.sort_by_key(|method| method.name().starts_with("Delete"));
    assert!(methods.len() > 30);
    let mut runner = TestRunner::new(Cases::default());
    let seed: u64 = rand::rng().random();
    eprintln!("the seed of this run is {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut faults = Vec::new();
    for method in &methods {
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        // A watch of what does not change has nothing more to say.
        let answers = if method.name().starts_with("Watch") { 1 } else { 16 };
        for _ in 0..CASES {
            let bytes = vec(any::<u8>(), 0..200).new_tree(&mut runner).unwrap().current();
            let answer = call(&channel, &path, vec![bytes.clone()], answers).await;
            faults.extend(fault(method, &format!("{bytes:?}"), answer));
            let messages = messages(&mut random, &known, method);
            let encoded = messages.iter().map(prost::Message::encode_to_vec).collect();
            let sent: Vec<String> = messages.iter().map(DynamicMessage::to_text_format).collect();
            faults.extend(fault(method, &sent.join("; "), call(&channel, &path, encoded, answers).await));
        }
    }
    assert!(faults.is_empty(), "{} faults: {}", faults.len(), faults.join("\n"));
    let health = HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await;
    health.expect("the server is gone");
    assert_eq!(PANICS.load(Ordering::SeqCst), 0);
    server.stop().await.unwrap();
    drop(first);
}
