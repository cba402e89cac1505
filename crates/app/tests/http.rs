//! HTTP beside gRPC, at the same port: the same answers, the same guard.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly too"
)]

mod common;

use app::serve::Roles;
use bytes::Bytes;
use common::{HARVESTER, PAIRS, PATIENCE, Server, add_token, pairs, publish, served};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wire::open_inference as v2;
use wire::open_inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use wire::open_inference::model_infer_request::InferInputTensor;
use wire::v1;
use wire::v1::inference_service_client::InferenceServiceClient;

const ALL: Roles = Roles { harvester: true, trainer: true, inference: true };

/// What came back.
#[derive(Debug)]
struct Said {
    code: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }
}

/// Asks over HTTP/1.1.
async fn ask(
    server: &Server,
    verb: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Said {
    let address = server.url.trim_start_matches("http://");
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::builder().method(verb).uri(path).header("host", address);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let asked = async {
        let response = sender.send_request(request.body(Full::new(body.into())).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        let text = String::from_utf8_lossy(&body.collect().await.unwrap().to_bytes()).into_owned();
        Said { code: head.status, headers: head.headers, text }
    };
    tokio::time::timeout(PATIENCE, asked).await.expect("no answer")
}

async fn get(server: &Server, path: &str) -> Said {
    ask(server, "GET", path, &[], "").await
}

async fn post(server: &Server, path: &str, body: Value) -> Said {
    ask(server, "POST", path, &[("content-type", "application/json")], body.to_string()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_student_answers_over_http_as_over_grpc() {
    let server = Server::start(ALL, |config, _| {
        config.harvester.workers = 1;
        // The same questions are computed each time, token by token.
        config.inference.cache_bytes_max = 0;
    })
    .await;
    let channel = server.channel(|_| {}).await.unwrap();
    publish(&channel, "nli", pairs()).await;
    served(&channel).await;
    let mut client = InferenceServiceClient::new(channel.clone());

    // One row, and many of which one is wrong.
    let request = v1::PredictRequest { example: Some(pairs()[0].clone()), ..Default::default() };
    let wanted = client.predict(request).await.unwrap().into_inner();
    let row = json!({"premise": PAIRS[0].0, "hypothesis": PAIRS[0].1});
    let said = post(&server, "/api/v1/predict", json!({"model": "student", "example": row})).await;
    assert_eq!(said.code, StatusCode::OK, "{said:?}");
    assert!(said.headers.contains_key("x-request-id"), "{said:?}");
    let answer = said.json();
    assert_eq!(answer["label"], wanted.label);
    assert_eq!(answer["logProbability"].as_f64().unwrap().to_bits(), wanted.log_probability.to_bits());
    assert_eq!(answer["answerer"]["version"], "1");
    let rows = json!([row, {"input": ""}, {"premise": PAIRS[1].0, "hypothesis": PAIRS[1].1}]);
    let many = post(&server, "/api/v1/predict:batch", json!({"examples": rows, "explain": true})).await;
    let answers = many.json()["answers"].clone();
    assert_eq!(answers[0]["prediction"]["label"], wanted.label, "{many:?}");
    assert_eq!(answers[1]["failure"]["code"], 3, "{many:?}");
    assert!(answers[2]["prediction"]["rationale"].is_string(), "{many:?}");

    // A stream, as lines and as events.
    let explain = json!({"example": row, "tokensMax": 4}).to_string();
    let lines = ask(&server, "POST", "/api/v1/explain", &[], explain.clone()).await;
    assert_eq!(lines.headers["content-type"], "application/x-ndjson");
    let events = ask(&server, "POST", "/api/v1/explain", &[("accept", "text/event-stream")], explain).await;
    assert_eq!(events.headers["content-type"], "text/event-stream");
    let wanted: String = lines.text.lines().map(|line| format!("data: {line}\n\n")).collect();
    assert_eq!(events.text, wanted);

    open_inference(&server, &channel).await;
    openai(&server, &mut client).await;
    server.stop().await.unwrap();
}

async fn open_inference(server: &Server, channel: &wire::Channel) {
    let mut client = GrpcInferenceServiceClient::new(channel.clone());
    assert_eq!(get(server, "/v2/health/live").await.json(), json!({"live": true}));
    assert_eq!(get(server, "/v2/health/ready").await.json(), json!({"ready": true}));
    assert_eq!(get(server, "/v2/models/student/ready").await.code, StatusCode::OK);
    assert_eq!(get(server, "/v2/models/other/ready").await.code, StatusCode::SERVICE_UNAVAILABLE);
    let unknown = get(server, "/v2/models/other").await;
    assert_eq!(unknown.code, StatusCode::NOT_FOUND);
    assert!(unknown.json()["error"].as_str().unwrap().contains("there is no model `other`"), "{unknown:?}");
    assert_eq!(get(server, "/v2/models/student/versions/1").await.json()["inputs"][0]["name"], "premise");

    let column = |of: fn(&(&'static str, &'static str, &'static str)) -> &'static str| {
        PAIRS.iter().map(of).collect::<Vec<&str>>()
    };
    let (premises, hypotheses) = (column(|pair| pair.0), column(|pair| pair.1));
    let tensor = |name: &str, texts: &[&str]| InferInputTensor {
        name: name.to_owned(),
        datatype: "BYTES".to_owned(),
        shape: vec![3],
        contents: Some(v2::InferTensorContents {
            bytes_contents: texts.iter().map(|text| text.as_bytes().to_vec()).collect(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let request = v2::ModelInferRequest {
        model_name: "student".to_owned(),
        inputs: vec![tensor("premise", &premises), tensor("hypothesis", &hypotheses)],
        ..Default::default()
    };
    let wanted = client.model_infer(request).await.unwrap().into_inner();
    let input =
        |name: &str, texts: &[&str]| json!({"name": name, "shape": [3], "datatype": "BYTES", "data": texts});
    let inputs = json!([input("premise", &premises), input("hypothesis", &hypotheses)]);
    let said =
        post(server, "/v2/models/student/versions/1/infer", json!({"id": "mine", "inputs": inputs})).await;
    let answer = said.json();
    assert_eq!((&answer["id"], &answer["model_version"]), (&json!("mine"), &json!("1")), "{said:?}");
    for (place, output) in wanted.outputs.iter().enumerate() {
        let contents = output.contents.as_ref().unwrap();
        let texts: Vec<String> =
            contents.bytes_contents.iter().map(|text| String::from_utf8(text.clone()).unwrap()).collect();
        let data = if output.name == "probability" { json!(contents.fp64_contents) } else { json!(texts) };
        assert_eq!(
            answer["outputs"][place],
            json!({"name": output.name, "datatype": output.datatype, "shape": output.shape, "data": data})
        );
    }
    let wrong = post(server, "/v2/models/student/infer", json!({"inputs": [input("text", &premises)]})).await;
    assert_eq!(wrong.code, StatusCode::BAD_REQUEST);
    assert!(wrong.json()["error"].as_str().unwrap().contains("inputs.text: is not an input"), "{wrong:?}");
}

async fn openai(server: &Server, client: &mut InferenceServiceClient<wire::Channel>) {
    let models = get(server, "/v1/models").await.json();
    assert_eq!(models["data"][0]["id"], "student@1");
    let mut wanted = Vec::new();
    for input in ["predict: a", "explain: b"] {
        let request = v1::GenerateRequest { input: input.to_owned(), tokens_max: 6, ..Default::default() };
        let mut pieces = client.generate(request).await.unwrap().into_inner();
        let mut text = String::new();
        while let Some(piece) = pieces.message().await.unwrap() {
            text += &piece.text;
        }
        wanted.push(text);
    }
    let asked = json!({"model": "student@1", "prompt": ["predict: a", "explain: b"], "max_tokens": 6});
    let said = post(server, "/v1/completions", asked.clone()).await.json();
    let texts: Vec<&str> =
        said["choices"].as_array().unwrap().iter().map(|choice| choice["text"].as_str().unwrap()).collect();
    assert_eq!(texts, wanted);
    let mut streamed = asked;
    streamed["stream"] = json!(true);
    let said = post(server, "/v1/completions", streamed).await;
    let mut texts = [String::new(), String::new()];
    let mut events: Vec<&str> = said.text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert_eq!(events.pop(), Some("[DONE]"), "{said:?}");
    for event in events {
        let event: Value = serde_json::from_str(event).unwrap();
        let choice = &event["choices"][0];
        texts[choice["index"].as_u64().unwrap() as usize] += choice["text"].as_str().unwrap();
    }
    assert_eq!(texts.to_vec(), wanted);
    let refused = post(server, "/v1/completions", json!({"model": "student", "prompt": "a", "n": 2})).await;
    assert_eq!(refused.code, StatusCode::BAD_REQUEST);
    assert_eq!(refused.json()["error"]["param"], "n", "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guard_is_the_same_for_http() {
    let server = Server::start(HARVESTER, |config, folder| {
        add_token(config, folder, "read", "");
    })
    .await;
    let token = [("authorization", "Bearer secret-of-read-0123456789")];
    let none = get(&server, "/api/v1/datasets").await;
    assert_eq!((none.code, none.json()["code"].as_i64()), (StatusCode::UNAUTHORIZED, Some(16)));
    assert_eq!(none.headers["www-authenticate"], "Bearer");
    // Who is not let in learns nothing of what there is, and sends no body.
    assert_eq!(get(&server, "/invented").await.code, StatusCode::UNAUTHORIZED);
    let check =
        async |verb: &str, path: &str, headers: &[(&str, &str)], body: &str, code: u16, words: &str| {
            let said = ask(&server, verb, path, &[&token[..], headers].concat(), body.to_owned()).await;
            assert_eq!(said.code.as_u16(), code, "{verb} {path}: {said:?}");
            assert!(said.text.contains(words), "{verb} {path}: {said:?}");
        };
    check("GET", "/api/v1/datasets?page.page_size=5", &[], "", 200, "\"datasets\":[]").await;
    check("GET", "/api/v1/datasets?pages=5", &[], "", 400, "pages: is no field of this call").await;
    check("GET", "/api/v1/datasets?page.page_size=x", &[], "", 400, "page.page_size: `x` is not").await;
    check("GET", "/api/v1/datasets", &[], "{}", 400, "body: this call takes none").await;
    check("PUT", "/api/v1/datasets", &[], "", 405, "this path takes").await;
    check("GET", "/invented", &[], "", 404, "GET /openapi.json lists them").await;
    check("POST", "/api/v1/datasets", &[], "{}", 403, "does not allow this").await;
    check("GET", "/api/v1/datasets/nothing", &[], "", 400, "dataset_id").await;
    check("GET", "/api/v1/datasets", &[("grpc-timeout", "soon")], "", 400, "grpc-timeout").await;
    // A stream has begun when its deadline passes: its last line says so.
    check("GET", "/api/v1/models:watch", &[("grpc-timeout", "300m")], "", 200, "{\"error\":{\"code\":4")
        .await;
    check("POST", "/api/v1/datasets", &[("content-type", "application/grpc")], "", 505, "HTTP/2").await;
    // What the other roles serve is in no document of this one.
    let document = get(&server, "/openapi.json").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    assert!(
        document["paths"]["/api/v1/datasets"]["get"]["description"].as_str().unwrap().contains("Committed")
    );
    assert!(document["paths"]["/api/v1/predict"].is_null());
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_body_is_said_and_pages_are_kept_out() {
    let server = Server::start(HARVESTER, |config, _| config.server.calls_max = 1).await;
    let check = async |headers: &[(&str, &str)], body: Vec<u8>, code: u16, words: &str| {
        let said = ask(&server, "POST", "/api/v1/datasets", headers, body).await;
        assert_eq!(said.code.as_u16(), code, "{said:?}");
        assert!(said.text.contains(words), "{said:?}");
    };
    check(&[], b"{".to_vec(), 400, "body: EOF while parsing").await;
    check(&[], b"{\"nom\": 1}".to_vec(), 400, "nom").await;
    check(&[], b"{\"name\": \"a b\", \"requestId\": \"x\"}".to_vec(), 400, "fieldViolations").await;
    let mut long = TcpStream::connect(server.url.trim_start_matches("http://")).await.unwrap();
    let head = "POST /api/v1/datasets HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99999999\r\n\r\n";
    long.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, long.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("16 MiB"), "{answer}");
    check(&[("origin", "http://evil.example")], b"{}".to_vec(), 403, "server.tokens").await;
    let id = uuid::Uuid::new_v4();
    let made =
        post(&server, "/api/v1/datasets", json!({"name": "rows", "requestId": id.to_string()})).await.json();
    let id = made["dataset"]["id"].as_str().unwrap();
    let rows = format!(
        "{}\n{}\n",
        json!({"datasetId": id, "examples": [{"input": "a"}]}),
        json!({"datasetId": id, "offset": 1, "examples": [{"input": "b"}]})
    );
    let sent = ask(&server, "POST", "/api/v1/datasets:upload", &[], rows).await.json();
    assert_eq!(sent["rows"], "2");
    let committed = ask(&server, "POST", &format!("/api/v1/datasets/{id}:commit"), &[], "").await.json();
    assert_eq!(committed["dataset"]["rows"], "2", "{committed}");
    let streamed = get(&server, &format!("/api/v1/datasets/{id}/rows?from_index=1")).await;
    assert_eq!(streamed.text.lines().count(), 1);
    assert!(streamed.text.contains("\"b\""), "{streamed:?}");
    // A call that lasts takes the only place.
    let _watch = {
        let address = server.url.trim_start_matches("http://").to_owned();
        let stream = TcpStream::connect(&address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::get("/api/v1/models:watch").header("host", address);
        (sender.send_request(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap(), sender)
    };
    let busy = get(&server, "/api/v1/datasets").await;
    assert_eq!(busy.code, StatusCode::TOO_MANY_REQUESTS, "{busy:?}");
    assert_eq!(busy.headers["retry-after"], "1");
    server.stop().await.unwrap();
}
