//! Rendering prompts: a task's template over exemplars and an example, sandboxed, with a limit on its instructions.

use crate::error::TeacherError;
use domain::Example;
use domain::task::Task;
use domain::template;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value, context};

/// Most work of one rendering: an instruction is one, and so are 64 bytes that are made or read.
const FUEL: u64 = 50_000;
/// Longest rendered prompt, in bytes.
const PROMPT_BYTES_MAX: usize = 256 * 1024;
/// How deep macros and loops may nest while a prompt is rendered.
const RECURSION_MAX: usize = 50;
const TEMPLATE: &str = "prompt";
/// A character of the private use area, with which no row begins.
const BLANK: &str = "\u{f8f0}";

/// A task's compiled template.
#[derive(Debug)]
pub struct Renderer {
    environment: Environment<'static>,
    task: Task,
}

/// A rendered prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The system message for chat models; empty for none.
    pub instruction: String,
    /// The prompt.
    pub prompt: String,
}

impl Renderer {
    /// Compiles `task`'s template.
    ///
    /// # Errors
    /// The template is not valid, or uses what a prompt may not: the message has its line and the mistake.
    pub fn new(task: &Task) -> Result<Self, TeacherError> {
        // Jobs of earlier versions were not checked when they were submitted.
        template::check(&task.template)
            .map_err(|refused| TeacherError::Invalid(format!("task `{}`: template, {refused}", task.name)))?;
        let mut environment = Environment::new();
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(RECURSION_MAX);
        environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment
            .add_template_owned(TEMPLATE, task.template.clone())
            .map_err(|error| TeacherError::Invalid(describe(task, &error)))?;
        Ok(Self { environment, task: task.clone() })
    }

    /// The prompt for `example`, with the gold label as a hint where one is given.
    ///
    /// # Errors
    /// The template uses an undefined value, runs too long, or renders too long a prompt.
    pub fn render(&self, example: &Example, hint: Option<&str>) -> Result<Rendered, TeacherError> {
        Ok(self.rendered(self.text(example, hint)?))
    }

    /// One prompt for several examples: what their prompts begin with alike (the exemplars), once; then each one's own part
    /// under its number in square brackets, as [`split_answers`](domain::completion::split_answers) reads the answers.
    ///
    /// # Errors
    /// As of [`render`](Self::render), for any of them or for all together.
    pub fn render_together(&self, asked: &[(&Example, Option<&str>)]) -> Result<Rendered, TeacherError> {
        let texts =
            asked.iter().map(|(example, hint)| self.text(example, *hint)).collect::<Result<Vec<_>, _>>()?;
        let shared = asked.first().map_or("", |(example, _)| self.shared(example, &texts));
        let (count, mut prompt) = (texts.len(), shared.to_owned());
        prompt.push_str(&format!("{count} questions follow, each under its number in square brackets.\n"));
        for (text, number) in texts.iter().zip(1_usize..) {
            let own = text.get(shared.len()..).unwrap_or(text).trim_end();
            prompt.push_str(&format!("\n[{number}]\n{own}\n"));
        }
        prompt.push_str(&format!(
            "\nAnswer all {count} questions, each in the form that is shown above. Begin every answer with the number of its \
             question in square brackets on a line of its own: [1], then [2], up to [{count}].\n"
        ));
        self.within_limit(&prompt)?;
        Ok(self.rendered(prompt))
    }

    /// The beginning that these texts share, the first of which is about `example`: whole paragraphs or lines, as far as no
    /// example has a part in it.
    fn shared<'a>(&self, example: &Example, texts: &'a [String]) -> &'a str {
        let Some((first, others)) = texts.split_first() else { return "" };
        // Two rows may begin alike: no row begins like this.
        let blank = |text: &String| if text.is_empty() { String::new() } else { BLANK.to_owned() };
        let other = Example {
            input: BLANK.to_owned(),
            choices: example.choices.iter().map(blank).collect(),
            premise: example.premise.as_ref().map(blank),
            hypothesis: example.hypothesis.as_ref().map(blank),
            ..Example::default()
        };
        let other = self.text(&other, None).unwrap_or_default();
        let alike = others.iter().chain([&other]).map(|text| alike(first, text)).min().unwrap_or_default();
        let alike = first.get(..alike).unwrap_or_default();
        let end = alike.rfind("\n\n").map(|at| at + 2).or_else(|| alike.rfind('\n').map(|at| at + 1));
        alike.get(..end.unwrap_or_default()).unwrap_or_default()
    }

    fn rendered(&self, prompt: String) -> Rendered {
        Rendered { instruction: self.task.instruction.clone(), prompt }
    }

    fn text(&self, example: &Example, hint: Option<&str>) -> Result<String, TeacherError> {
        let values = context! {
            exemplars => Value::from(Serde(&self.task.exemplars)),
            example => example_value(example),
            hint => hint,
        };
        let prompt = self
            .environment
            .get_template(TEMPLATE)
            .and_then(|template| template.render(values))
            .map_err(|error| TeacherError::Invalid(describe(&self.task, &error)))?;
        self.within_limit(&prompt)?;
        Ok(prompt)
    }

    fn within_limit(&self, prompt: &str) -> Result<(), TeacherError> {
        if prompt.len() <= PROMPT_BYTES_MAX {
            return Ok(());
        }
        Err(TeacherError::Invalid(format!(
            "task `{}`: a rendered prompt has {} bytes and the limit is {PROMPT_BYTES_MAX}: shorten the exemplars",
            self.task.name,
            prompt.len()
        )))
    }
}

/// How many bytes two texts begin alike, up to the end of a character.
fn alike(left: &str, right: &str) -> usize {
    let same = left.chars().zip(right.chars()).take_while(|(left, right)| left == right);
    same.map(|(character, _)| character.len_utf8()).sum()
}

/// Every field is defined, empty where the row has none, so that templates can test each of them.
fn example_value(example: &Example) -> Value {
    context! {
        input => &example.input,
        choices => &example.choices,
        premise => &example.premise,
        hypothesis => &example.hypothesis,
    }
}

fn describe(task: &Task, error: &minijinja::Error) -> String {
    let line = error.line().map_or_else(String::new, |line| format!(", line {line}"));
    let detail = error
        .detail()
        .map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind()));
    format!("task `{}`: template{line}: {detail}", task.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(template: &str) -> Task {
        Task { template: template.into(), ..Task::built_in("equation").unwrap() }
    }

    #[test]
    fn exemplars_come_first_and_nothing_is_escaped() {
        let task = task(
            "{% for e in exemplars %}{{ e.input }}|{% endfor %}{{ example.input }}{% if hint %} ({{ hint }}){% endif %}",
        );
        let renderer = Renderer::new(&task).unwrap();
        let example = Example { input: "<a> & b?".into(), ..Example::default() };
        assert!(renderer.render(&example, None).unwrap().prompt.ends_with("<a> & b?"));
        assert!(renderer.render(&example, Some("4")).unwrap().prompt.ends_with("<a> & b? (4)"));
    }

    #[test]
    fn several_rows_share_what_their_prompts_begin_with() {
        let row = |input: &str| Example { input: input.into(), ..Example::default() };
        let of = |template: &str, inputs: &[&str]| {
            let rows: Vec<Example> = inputs.iter().map(|input| row(input)).collect();
            let asked: Vec<(&Example, Option<&str>)> = rows.iter().map(|row| (row, Some("4"))).collect();
            Renderer::new(&task(template)).unwrap().render_together(&asked).unwrap().prompt
        };
        let end = "\nAnswer all 2 questions, each in the form that is shown above. Begin every answer with the number of its \
                   question in square brackets on a line of its own: [1], then [2], up to [2].\n";
        let intro = "2 questions follow, each under its number in square brackets.\n";
        let template = "Q: a?\nA: b.\n\nQ: {{ example.input }}\nHint: {{ hint }}\nA:";
        // Rows that begin alike, or are the same, are told whole.
        for second in ["Ann has 3.", "Ann has 2."] {
            assert_eq!(
                of(template, &["Ann has 2.", second]),
                format!(
                    "Q: a?\nA: b.\n\n{intro}\n[1]\nQ: Ann has 2.\nHint: 4\nA:\n\n[2]\nQ: {second}\nHint: 4\nA:\n{end}"
                )
            );
        }
        // Without exemplars there is nothing to share.
        assert_eq!(of("{{ example.input }}", &["a", "b"]), format!("{intro}\n[1]\na\n\n[2]\nb\n{end}"));
        // Every built-in task has its exemplars once.
        for name in domain::task::BUILT_IN {
            let task = Task::built_in(name).unwrap();
            let Some(exemplar) = task.exemplars.first().cloned() else { continue };
            let row = Example {
                input: "one".into(),
                choices: vec!["x".into(), "y".into()],
                premise: Some("p".into()),
                hypothesis: Some("h".into()),
                ..Example::default()
            };
            let renderer = Renderer::new(&task).unwrap();
            let (one, two) =
                (renderer.render(&row, None).unwrap(), renderer.render_together(&[(&row, None); 2]));
            let (one, two) = (one.prompt, two.unwrap().prompt);
            assert_eq!(two.matches(exemplar.rationale.as_str()).count(), 1, "{name}: {two}");
            assert!(two.len() < one.len() + 600, "{name}: {two}");
        }
    }

    #[test]
    fn wrong_templates_say_where() {
        let broken = Renderer::new(&task("line one\n{% if %}")).unwrap_err().to_string();
        assert!(broken.contains("template, line 2"), "{broken}");
        let endless = Renderer::new(&task(
            "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}",
        ));
        let message = endless.unwrap().render(&Example::default(), None).unwrap_err().to_string();
        assert!(message.contains("fuel"), "{message}");
        // What a job of an earlier version may hold.
        let bomb = task("{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}");
        let refused = Renderer::new(&bomb).unwrap_err().to_string();
        assert!(refused.contains("template, line 1: `set`"), "{refused}");
        let absent = Renderer::new(&task("{{ nothing.at.all }}")).unwrap();
        assert!(absent.render(&Example::default(), None).is_err());
    }
}
