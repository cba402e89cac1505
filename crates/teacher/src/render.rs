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
        if prompt.len() > PROMPT_BYTES_MAX {
            return Err(TeacherError::Invalid(format!(
                "task `{}`: a rendered prompt has {} bytes and the limit is {PROMPT_BYTES_MAX}: shorten the exemplars",
                self.task.name,
                prompt.len()
            )));
        }
        Ok(Rendered { instruction: self.task.instruction.clone(), prompt })
    }
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
