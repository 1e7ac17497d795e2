//! `docs/openapi.yaml` is what the servers do: every documented answer is provoked and checked against its schema,
//! and no undocumented one is found.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result};
use bellwether::http::PLACES_MOST;
use bellwether::metrics::Path;
use serde_json::{Value, json};

use crate::client::{Answer, Client, Events};
use crate::sidecar::{LEAD, Options, Sidecar, advance, jeopardy, leading, standby, starting};

struct Document {
    root: Value,
    /// Which `METHOD path status` have been seen.
    seen: BTreeSet<String>,
}

impl Document {
    fn read() -> Result<Self> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.yaml");
        let root = serde_norway::from_str(&std::fs::read_to_string(path)?)?;
        Ok(Self { root, seen: BTreeSet::new() })
    }

    /// Follows `$ref`, should there be one.
    fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(to) => self.root.pointer(to.trim_start_matches('#')).unwrap_or_else(|| panic!("{to} leads nowhere")),
            None => value,
        }
    }

    fn operations(&self) -> impl Iterator<Item = (&str, &str, &Value)> {
        let paths = self.root["paths"].as_object().expect("there are paths");
        paths.iter().flat_map(|(path, item)| {
            let methods = item.as_object().expect("a path has methods");
            let methods = methods.iter().filter(|(method, _)| *method != "servers");
            methods.map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
        })
    }

    /// All that is documented, as `METHOD path status`.
    fn documented(&self) -> BTreeSet<String> {
        let of = |(path, method, operation): (&str, &str, &Value)| {
            let statuses: Vec<_> = operation["responses"].as_object().expect("responses").keys().cloned().collect();
            let method = method.to_uppercase();
            statuses.into_iter().map(|status| format!("{method} {path} {status}")).collect::<Vec<_>>()
        };
        self.operations().flat_map(of).collect()
    }

    fn is_telemetry(&self, path: &str) -> bool {
        !self.root["paths"][path]["servers"].is_null()
    }

    /// The answer is one of those documented for the operation, and looks like it.
    fn check(&mut self, method: &str, target: &str, answer: &Answer) {
        let path = target.split('?').next().expect("a split has a first part").to_owned();
        let name = format!("{method} {path} {}", answer.status);
        let operation = &self.root["paths"][&path][method.to_lowercase()];
        let response = self.resolved(&operation["responses"][answer.status.to_string()]);
        assert!(!response.is_null(), "{name} is not documented: {answer:?}");
        self.check_response(&name, response, answer);
        self.seen.insert(name);
    }

    fn check_response(&self, name: &str, response: &Value, answer: &Answer) {
        for (header, described) in response["headers"].as_object().into_iter().flatten() {
            let described = self.resolved(described);
            match answer.header(&header.to_lowercase()) {
                Some(value) => self.check_schema(name, &described["schema"], &value.into()),
                None => assert_ne!(described["required"], true, "{name} lacks {header}"),
            }
        }
        let known = ["content-length", "content-type", "date", "connection"];
        for (header, _) in &answer.headers {
            let described =
                response["headers"].as_object().is_some_and(|all| all.keys().any(|it| it.to_lowercase() == *header));
            assert!(described || known.contains(&header.as_str()), "{name} has {header}, which is not documented");
        }
        let Some(content) = response["content"].as_object() else {
            assert!(answer.body.is_empty(), "{name} has a body, which is not documented");
            return;
        };
        let media_type = answer.header("content-type").expect("a body has a type").split(';').next().unwrap_or("");
        let described = content.get(media_type).unwrap_or_else(|| panic!("{name}: {media_type} is not documented"));
        let body = if media_type == "application/json" { answer.json() } else { answer.body.as_str().into() };
        self.check_schema(name, &described["schema"], &body);
    }

    fn check_schema(&self, name: &str, schema: &Value, value: &Value) {
        if let Err(error) = self.matches(schema, value) {
            panic!("{name}: {error}\n{value:#}");
        }
    }

    fn matches(&self, schema: &Value, value: &Value) -> Result<()> {
        let schema = json!({ "allOf": [schema], "components": self.root["components"] });
        let validator = jsonschema::draft202012::new(&schema)?;
        let faults: Vec<_> = validator.iter_errors(value).map(|it| format!("{it} at {}", it.instance_path())).collect();
        anyhow::ensure!(faults.is_empty(), "{}", faults.join("; "));
        Ok(())
    }
}

struct Provoked {
    sidecar: Sidecar,
    document: Document,
}

impl Provoked {
    async fn ask(&mut self, method: &str, target: &str, expected: u16) -> Result<()> {
        self.ask_with(method, target, &["Host: localhost"], expected).await
    }

    async fn ask_with(&mut self, method: &str, target: &str, headers: &[&str], expected: u16) -> Result<()> {
        let path = target.split('?').next().expect("a split has a first part");
        let telemetry = self.document.is_telemetry(path);
        let address = if telemetry { self.sidecar.telemetry } else { self.sidecar.api };
        let answer = Client::tcp(address).await?.ask_with(method, target, headers).await?;
        assert_eq!(answer.status, expected, "{method} {target}: {answer:?}");
        self.document.check(method, target, &answer);
        Ok(())
    }

    async fn ask_both(&mut self, target: &str, expected: u16) -> Result<()> {
        self.ask("GET", target, expected).await?;
        self.ask("HEAD", target, expected).await
    }

    async fn ask_who_leads(&mut self) -> Result<()> {
        for view in [starting(), standby(), jeopardy()] {
            self.sidecar.publish(view);
            self.ask_both("/leader", 503).await?;
            self.ask_both("/", 200).await?;
            self.ask_both("/status", 200).await?;
        }
        self.sidecar.publish(leading());
        self.ask_both("/leader", 200).await?;
        self.ask_both("/leader?identity=web-2", 503).await?;
        self.ask_both("/", 200).await?;
        self.ask_both("/status", 200).await?;
        advance(LEAD);
        self.ask_both("/leader", 503).await?;
        self.ask_both("/status", 200).await
    }

    async fn ask_for_news(&mut self) -> Result<()> {
        self.sidecar.publish(leading());
        self.ask_both("/leader?wait=1h", 400).await?;
        self.ask_both("/check?term=48300", 200).await?;
        self.ask_both("/check?term=48299", 412).await?;
        self.ask_both("/check", 400).await?;
        self.ask("HEAD", "/events", 200).await?;
        let mut open = Vec::new();
        for _ in 0..PLACES_MOST {
            let mut events = Events::open(self.sidecar.api, &[]).await?;
            events.next().await?;
            open.push(events);
        }
        self.document.check("GET", "/events", &open[0].answer());
        self.ask("GET", "/events", 503).await?;
        let version = Client::tcp(self.sidecar.api).await?.ask("GET", "/leader").await?.version();
        self.ask_both(&format!("/leader?wait=1m&seen={version}"), 200).await
    }

    async fn ask_to_resign(&mut self) -> Result<()> {
        self.sidecar.publish(leading());
        self.ask("POST", "/resign?cooldown=5m", 202).await?;
        self.ask("POST", "/resign", 503).await?;
        self.ask("POST", "/resign?cooldown=soon", 400).await?;
        self.ask_with("POST", "/resign", &["Host: evil.example"], 403).await?;
        self.ask_with("POST", "/resign", &["Host: localhost", "Content-Length: 1"], 413).await?;
        self.sidecar.publish(standby());
        self.ask("POST", "/resign", 409).await
    }

    async fn ask_for_telemetry(&mut self) -> Result<()> {
        self.ask_both("/metrics", 200).await?;
        self.ask_both("/readyz", 503).await?;
        self.sidecar.shared.ready();
        self.ask_both("/readyz", 200).await?;
        self.sidecar.shared.heartbeat();
        self.ask_both("/livez", 200).await?;
        advance(Duration::from_secs(11));
        self.ask_both("/livez", 503).await
    }
}

#[tokio::test]
async fn the_servers_give_every_documented_answer_and_no_other() -> Result<()> {
    let sidecar = Sidecar::start_with(Options { commands: 1, ..Options::default() }).await?;
    let mut provoked = Provoked { sidecar, document: Document::read()? };
    provoked.ask_who_leads().await?;
    provoked.ask_for_news().await?;
    provoked.ask_to_resign().await?;
    provoked.ask_for_telemetry().await?;
    assert_eq!(provoked.document.seen, provoked.document.documented());
    Ok(())
}

#[tokio::test]
async fn refusals_look_as_documented_everywhere() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    let document = Document::read()?;
    for address in [sidecar.api, sidecar.telemetry] {
        let unknown = Client::tcp(address).await?.ask("GET", "/not-leader").await?;
        assert_eq!(unknown.status, 404);
        document.check_response("404", &document.root["components"]["responses"]["NotFound"], &unknown);
    }
    for (path, _, _) in document.operations() {
        let address = if document.is_telemetry(path) { sidecar.telemetry } else { sidecar.api };
        let wrong = Client::tcp(address).await?.ask("PATCH", path).await?;
        assert_eq!(wrong.status, 405, "{path}");
        document.check_response(path, &document.root["components"]["responses"]["MethodNotAllowed"], &wrong);
        let allowed: BTreeSet<_> = wrong.header("allow").unwrap_or("").split(',').map(str::to_lowercase).collect();
        let described =
            document.operations().filter(|(each, ..)| *each == path).map(|(_, method, _)| method.to_owned());
        assert_eq!(allowed, described.collect(), "{path}");
        let headers = ["Host: localhost", "Content-Length: 2"];
        let bulky = Client::tcp(address).await?.ask_with("GET", path, &headers).await?;
        assert_eq!(bulky.status, 413, "{path}");
        document.check_response(path, &document.root["components"]["responses"]["BodyNotWanted"], &bulky);
    }
    Ok(())
}

#[test]
fn every_path_that_is_served_is_documented() -> Result<()> {
    let document = Document::read()?;
    let documented: BTreeSet<_> = document.operations().map(|(path, ..)| path).collect();
    assert_eq!(documented, Path::served().map(Path::as_str).collect());
    Ok(())
}

#[test]
fn every_example_is_one() -> Result<()> {
    let document = Document::read()?;
    let mut responses: Vec<_> =
        document.root["components"]["responses"].as_object().context("responses")?.iter().map(|it| it.1).collect();
    for (.., operation) in document.operations() {
        responses.extend(operation["responses"].as_object().context("responses")?.values());
    }
    let mut examples = 0;
    for content in responses.iter().filter_map(|response| response["content"].as_object()) {
        for described in content.values() {
            for (name, example) in described["examples"].as_object().context("every body has an example")? {
                document.check_schema(name, &described["schema"], &example["value"]);
                examples += 1;
            }
        }
    }
    assert!(examples >= 15, "{examples}");
    Ok(())
}

/// The control of all of the above: the checker refuses what does not match.
#[test]
fn control_the_checker_refuses_other_bodies() -> Result<()> {
    let document = Document::read()?;
    let schema = json!({ "$ref": "#/components/schemas/Leader" });
    let right = document.root["paths"]["/leader"]["get"]["responses"]["200"]["content"]["application/json"]["examples"]
        ["leading"]["value"]
        .clone();
    document.matches(&schema, &right)?;
    for (pointer, wrong) in [
        ("leading", json!("true")),
        ("term", json!(-1)),
        ("term", json!(1.5)),
        ("state", json!("leader")),
        ("since", json!("2026-11-22 07:00:00")),
        ("undocumented", json!(1)),
    ] {
        let mut body = right.clone();
        body[pointer] = wrong;
        assert!(document.matches(&schema, &body).is_err(), "{body}");
    }
    let mut lacking = right;
    lacking.as_object_mut().context("an object")?.remove("etcd");
    assert!(document.matches(&schema, &lacking).is_err());
    Ok(())
}
