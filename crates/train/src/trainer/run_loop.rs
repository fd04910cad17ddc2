//! The loop: step, validate, keep the best, save, until the rows are through.

use std::time::Instant;

use compute::Backend;
use data::{Supervisor, Wanted, record};
use eval::classification;
use eval::preference::Report;
use session::{Finish, Flow, Prompt, Sampling, Speaker};
use text::Message;

use super::course::{Course, Judged, Next, Stand, StepData};
use super::noise::{self, Lowest};
use super::preference_report::{self, Margins};
use super::reference_cache::Filled;
use super::start::Run;
use super::{Control, Summary, output, report};
use crate::checkpoint::{Best, Contents, MOST_MARGINS};
use crate::doctor::{Doctor, Found, SampledAnswer};
use crate::events::{Event, StepEvent};
use crate::models::PartName;
use crate::recipe::Every;
use crate::{Error, Result};

/// Keeps dropout's masks apart from every other use of the seed.
const PURPOSE_DROPOUT: u64 = 0x6472_6f70;

pub(super) fn run(
    run: &mut Run,
    backend: &mut dyn Backend,
    observer: &mut dyn FnMut(&Event),
    control: &mut dyn FnMut() -> Control,
) -> Result<Summary> {
    all_steps(run, backend, observer, control).map_err(|error| match error.is_io() {
        true => run.store.unsaved(format!("step {}", run.state.step), error),
        false => error,
    })
}

fn all_steps(
    run: &mut Run,
    backend: &mut dyn Backend,
    observer: &mut dyn FnMut(&Event),
    control: &mut dyn FnMut() -> Control,
) -> Result<Summary> {
    let begun = Instant::now();
    if run.state.step < run.total_steps {
        refresh_reference(run, backend)?;
        compute_reference(run, backend, observer, control)?;
        note_begun(run, backend)?;
    }
    let mut last_save = Instant::now();
    let mut status = "finished";
    let mut heard = Heard { control, heard: Control::Continue };
    if run.state.owes_validation {
        validate(run, backend, observer, &mut heard)?;
        save(run, backend, observer)?;
    }
    while run.state.step < run.total_steps {
        if heard.take() == Control::Stop {
            status = "interrupted";
            break;
        }
        let before = run.state.clone();
        let event = match step(run, backend, observer, &mut heard)? {
            Stepped::Done(event) => event,
            Stepped::Stopped => {
                save(run, backend, observer)?;
                status = "interrupted";
                break;
            }
            Stepped::End => {
                // Prompts that taught nothing were replaced, so they are through before the steps are.
                validate(run, backend, observer, &mut heard)?;
                save(run, backend, observer)?;
                break;
            }
        };
        run.tell(&Event::Step(event.clone()), observer)?;
        let mut found = doctor_of(run).after_step(&mut run.state.history, &event);
        let is_last = run.state.step == run.total_steps;
        if is_due(run.recipe.evaluate_every, &before, &run.state) || is_last {
            validate(run, backend, observer, &mut heard)?;
            found.extend(sample(run, backend, observer)?);
        }
        let stops = tell_found(run, &found, observer)?;
        heard.now();
        let control = if stops { Control::Stop } else { heard.take() };
        let due = match run.recipe.save_every {
            Every::Minutes(minutes) => last_save.elapsed().as_secs_f64() >= 60.0 * minutes,
            every => is_due(every, &before, &run.state),
        };
        if due || is_last || control != Control::Continue {
            save(run, backend, observer)?;
            last_save = Instant::now();
        }
        if control == Control::Stop && (!is_last || run.state.owes_validation) {
            status = if stops { "stopped" } else { "interrupted" };
            break;
        }
        if refresh_reference(run, backend)? {
            // It is not interrupted: steps since the last checkpoint would be lost.
            compute_reference(run, backend, observer, &mut || Control::Continue)?;
        }
    }
    if run.state.owes_validation {
        status = "interrupted";
    }
    if run.state.best.is_none() || !run.output().is_dir() {
        output::write(run, backend)?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let finished = Event::Finished { status: status.into(), step: run.state.step, seconds };
    run.tell(&finished, observer)?;
    let compared = compare(run, backend, observer)?;
    let classification = classification(run);
    let summary = Summary { preference: compared, classification, ..summary(run, status) };
    report::write_report(run, &summary)?;
    Ok(summary)
}

/// What the caller wanted since the last step: asked in the midst of one, it is not forgotten.
struct Heard<'a> {
    control: &'a mut dyn FnMut() -> Control,
    heard: Control,
}

impl Heard<'_> {
    /// What was heard so far; it counts as done.
    fn take(&mut self) -> Control {
        std::mem::replace(&mut self.heard, Control::Continue)
    }

    fn now(&mut self) -> Control {
        match (self.heard, (self.control)()) {
            (Control::Stop, _) | (_, Control::Stop) => self.heard = Control::Stop,
            (Control::Save, _) | (_, Control::Save) => self.heard = Control::Save,
            _ => {}
        }
        self.heard
    }
}

/// What became of a step.
enum Stepped {
    Done(StepEvent),
    /// The caller wants the run to end, and the step was not made.
    Stopped,
    /// There is no further step.
    End,
}

/// Looks for what goes wrong in the run.
fn doctor_of(run: &Run) -> Doctor {
    Doctor { beta: run.recipe.beta }
}

/// Tells what was found, with the last checkpoint from before it. Says whether the recipe ends the run for it.
fn tell_found(run: &mut Run, found: &[Found], observer: &mut dyn FnMut(&Event)) -> Result<bool> {
    let mut stops = false;
    for finding in found {
        let Found { id, step, message } = finding;
        let cure = finding.kind().map_or("", |kind| kind.hint);
        let before = match run.store.latest() {
            Some(path) => format!("the last checkpoint before it is {}", path.display()),
            None => "no checkpoint was written before it".to_owned(),
        };
        let event = Event::Finding {
            step: Some(*step),
            id: id.clone(),
            level: "warning".into(),
            count: 1,
            places: Vec::new(),
            hint: format!("{message}; {cure}; {before}"),
        };
        run.tell(&event, observer)?;
        stops |= run.recipe.stop_on.contains(id);
    }
    Ok(stops)
}

/// Makes the reference follow the policy, where that is due before the next step. Says whether it was.
///
/// Not right after a step: validation and checkpoint still go with the reference that the step had, so that a run
/// that goes on from there does what one without a break does.
fn refresh_reference(run: &mut Run, backend: &mut dyn Backend) -> Result<bool> {
    let (done, all) = (run.state.step, run.total_steps);
    let Some(refresh) = run.recipe.refresh.filter(|refresh| refresh.is_due(done) && done < all)
    else {
        return Ok(false);
    };
    run.models.refresh_reference(backend, &mut run.setup, refresh.mix)?;
    run.course.forget_reference();
    // Figures against another reference are no measure for later ones.
    run.state.lowest = None;
    Ok(true)
}

/// Computes the log-probabilities of the reference, where that is done once.
fn compute_reference(
    run: &mut Run,
    backend: &mut dyn Backend,
    observer: &mut dyn FnMut(&Event),
    control: &mut dyn FnMut() -> Control,
) -> Result<()> {
    let begun = Instant::now();
    let mut engine = run.models.engine(backend, run.plan.recompute);
    let mut go_on = || match control() {
        Control::Stop => Err(data::Error::Interrupted.into()),
        _ => Ok(()),
    };
    let filled = run.course.begin(&mut engine, &run.packing, &mut go_on)?;
    let Some(Filled { rows, computed }) = filled else { return Ok(()) };
    let seconds = begun.elapsed().as_secs_f64();
    run.state.seconds += seconds;
    run.tell(&Event::ReferenceCached { sequences: rows, computed, seconds }, observer)
}

/// Asks a course, with what the run has at hand.
fn at_stand<T>(
    run: &mut Run,
    backend: &mut dyn Backend,
    observer: &mut dyn FnMut(&Event),
    heard: &mut Heard<'_>,
    ask: impl FnOnce(&mut dyn Course, &mut Stand<'_>) -> Result<T>,
) -> Result<T> {
    let Run { course, models, state, metadata, packing, plan, log, .. } = run;
    let mut tell = |event: &Event| {
        log.write(event)?;
        observer(event);
        Ok(())
    };
    let mut stand = Stand {
        models,
        backend,
        state,
        metadata,
        packing,
        recompute: plan.recompute,
        listen: &mut || heard.now(),
        tell: &mut tell,
    };
    ask(&mut **course, &mut stand)
}

/// One optimizer step.
fn step(
    run: &mut Run,
    backend: &mut dyn Backend,
    observer: &mut dyn FnMut(&Event),
    heard: &mut Heard<'_>,
) -> Result<Stepped> {
    let begun = Instant::now();
    let data = match at_stand(run, backend, observer, heard, |course, at| course.next(at))? {
        Next::Step(data) => data,
        Next::Stopped => return Ok(Stepped::Stopped),
        Next::End => return Ok(Stepped::End),
    };
    let StepData { plan, rows, next, epoch, rollout, metrics } = *data;
    let number = run.state.step;
    let dropout_key = (run.recipe.dropout > 0.0)
        .then(|| compute::random::key(&[run.recipe.seed, PURPOSE_DROPOUT, number]));
    let trained = run.models.trained();
    let parameters: Vec<_> = trained.iter().map(|tensor| tensor.parameter).collect();
    let mut engine = run.models.engine(backend, run.plan.recompute);
    let mut outcome = engine.accumulate(&plan, run.course.objective(), dropout_key)?;
    if let Some(objective) = run.course.value_objective() {
        engine.trained = PartName::Value;
        let values = engine.accumulate(&plan, objective, dropout_key)?;
        engine.trained = PartName::Policy;
        outcome.loss += values.loss;
        outcome.metrics.extend(values.metrics);
    }
    let grad_norm = engine.gradient_norm(&parameters)?;
    check_finite(run, number + 1, outcome.loss, grad_norm)?;
    let learning_rate = run.recipe.learning_rate * run.schedule.factor(number);
    // As torch.nn.utils.clip_grad_norm_ shortens.
    let gradient_scale =
        run.recipe.max_grad_norm.map_or(1.0, |max| (max / (grad_norm + 1e-6)).min(1.0));
    let optimizer = &run.recipe.optimizer;
    optimizer.step(backend, &trained, learning_rate, gradient_scale, number + 1)?;
    run.models.refresh(backend)?;
    backend.sync()?;
    // Of an embedding that is left in its file, pages of rows that were looked up.
    run.base.release();

    let seconds = begun.elapsed().as_secs_f64();
    let state = &mut run.state;
    state.step += 1;
    state.cursor = next;
    state.rollout = rollout;
    state.carried = outcome.carried;
    state.loss_first.get_or_insert(outcome.loss);
    state.loss_last = Some(outcome.loss);
    state.grad_norm = Some(grad_norm);
    state.rows += rows as u64;
    state.tokens += plan.totals.tokens as u64;
    state.tokens_supervised += plan.totals.targets as u64;
    state.tokens_computed += plan.totals.tokens_computed as u64;
    state.seconds += seconds;
    let own = outcome.metrics.into_iter().map(|(name, value)| (name.to_owned(), value));
    Ok(Stepped::Done(StepEvent {
        step: state.step,
        loss: outcome.loss,
        learning_rate,
        grad_norm,
        epoch,
        rows,
        tokens: plan.totals.tokens,
        tokens_supervised: plan.totals.targets,
        tokens_computed: plan.totals.tokens_computed,
        micro_batches: plan.micros.len(),
        seconds,
        metrics: metrics.into_iter().chain(own).collect(),
    }))
}

fn check_finite(run: &Run, step: u64, loss: f64, grad_norm: f64) -> Result<()> {
    let (what, value) = match (loss.is_finite(), grad_norm.is_finite()) {
        (true, true) => return Ok(()),
        (false, _) => ("loss", loss),
        (true, false) => ("grad_norm", grad_norm),
    };
    Err(not_finite(run, step, what, value, run.state.grad_norm))
}

fn not_finite(run: &Run, step: u64, what: &'static str, value: f64, last: Option<f64>) -> Error {
    let hint = match run.store.latest() {
        Some(path) => format!(
            "{} is the last good checkpoint: go on from it with `--resume` and a lower `train.learning_rate`",
            path.display()
        ),
        None => {
            "no checkpoint was written yet: begin again with a lower `train.learning_rate`".into()
        }
    };
    Error::NotFinite { step, what, value, last, hint }
}

fn is_due(every: Every, before: &crate::checkpoint::State, now: &crate::checkpoint::State) -> bool {
    match every {
        Every::Steps(steps) => now.step / steps > before.step / steps,
        Every::Tokens(tokens) => now.tokens / tokens > before.tokens / tokens,
        Every::Minutes(minutes) => {
            (now.seconds / (60.0 * minutes)).floor() > (before.seconds / (60.0 * minutes)).floor()
        }
    }
}

/// Whether a validation is to be kept, as the recipe says. Notes the lowest loss.
fn is_kept(run: &mut Run, judged: &Judged) -> bool {
    let state = &mut run.state;
    let Judged { loss, score, shares, .. } = judged;
    let Some(loss) =
        loss.filter(|_| run.recipe.keeps_late && shares.len() <= noise::MOST_SEQUENCES)
    else {
        return state.best.as_ref().is_none_or(|best| score.is_better_than(&best.score));
    };
    match &state.lowest {
        Some(lowest) if loss >= lowest.loss => lowest.is_met_by(shares),
        _ => {
            state.lowest = Some(Lowest { loss, sequences: shares.clone() });
            true
        }
    }
}

/// Judges the model on the validation rows, and keeps it if it is the best so far.
fn validate(
    run: &mut Run,
    backend: &mut dyn Backend,
    observer: &mut dyn FnMut(&Event),
    heard: &mut Heard<'_>,
) -> Result<()> {
    let judged = at_stand(run, backend, observer, heard, |course, at| course.judge(at))?;
    run.state.owes_validation = judged.is_none() && heard.heard == Control::Stop;
    let Some(mut judged) = judged else { return Ok(()) };
    // Rewards do not depend on the reference.
    let refresh = run.recipe.refresh.filter(|_| judged.loss.is_some());
    let reference_step = refresh.map_or(0, |refresh| refresh.last_before(run.state.step));
    judged.score.reference_step = reference_step;
    let (step, loss) = (run.state.step, judged.loss);
    if let Some(loss) = loss.filter(|loss| !loss.is_finite()) {
        return Err(not_finite(run, step, "validation_loss", loss, None));
    }
    let best = is_kept(run, &judged);
    run.state.validation_last = Some(judged.score.value);
    if best {
        let margins = kept_margins(judged.margins);
        let mut classified = judged.classified;
        classified.truncate(MOST_MARGINS);
        run.state.best = Some(Best { step, score: judged.score, margins, classified });
        output::write(run, backend)?;
    }
    let event = Event::Evaluated {
        step,
        validation_loss: loss,
        metrics: judged.metrics.into_iter().collect(),
        reference_step: (reference_step > 0).then_some(reference_step),
        best,
    };
    run.tell(&event, observer)
}

/// The margins of the first rows; none where a row has none.
fn kept_margins(margins: Vec<Option<f64>>) -> Vec<f64> {
    let margins = margins.into_iter().take(MOST_MARGINS);
    let margins = margins.map(|margin| margin.filter(|margin| margin.is_finite()));
    margins.collect::<Option<Vec<f64>>>().unwrap_or_default()
}

/// Notes what the model prefers before its first step, where rewards are its own log-probabilities: against a reference
/// that is nothing.
fn note_begun(run: &mut Run, backend: &mut dyn Backend) -> Result<()> {
    let objective = run.course.objective();
    let is_own = objective.extra_passes().is_empty() && objective.request().want.logprob;
    let is_of_pairs = run.method.records == Wanted::Preferences;
    if run.state.step > 0 || !is_own || !is_of_pairs {
        return Ok(());
    }
    // Such a course is not broken off.
    let mut heard = Heard { control: &mut || Control::Continue, heard: Control::Continue };
    let judge = |course: &mut dyn Course, at: &mut Stand<'_>| course.judge(at);
    let judged = at_stand(run, backend, &mut |_| {}, &mut heard, judge)?;
    run.state.margins_begun = judged.map_or_else(Vec::new, |judged| kept_margins(judged.margins));
    Ok(())
}

/// Compares the best model with trivial rules on the held-out pairs.
fn compare(
    run: &mut Run,
    backend: &mut dyn Backend,
    observer: &mut dyn FnMut(&Event),
) -> Result<Option<Report>> {
    let Some(best) = run.state.best.clone().filter(|best| !best.margins.is_empty()) else {
        return Ok(None);
    };
    let (tokenizer, seed) = (&run.metadata.tokenizer, run.recipe.seed);
    let mut engine = run.models.engine(backend, run.plan.recompute);
    let Some(pairs) = run.course.rows() else { return Ok(None) };
    let margins = Margins { now: &best.margins, begun: &run.state.margins_begun };
    let (packing, report) = (&run.packing, preference_report::compare);
    let report = report(pairs, &mut engine, packing, margins, tokenizer, seed)?;
    for (id, message, cure) in report.iter().flat_map(preference_report::warnings) {
        let event = Event::Finding {
            step: Some(best.step),
            id: id.into(),
            level: "warning".into(),
            count: 1,
            places: Vec::new(),
            hint: format!("{message}; {cure}"),
        };
        run.tell(&event, observer)?;
    }
    Ok(report)
}

/// How the best model classified the validation rows.
fn classification(run: &Run) -> Option<classification::Report> {
    let best = run.state.best.as_ref()?;
    classification::report(&best.classified, &run.classes, run.recipe.seed)
}

/// Answers the recipe's fixed prompts, and says what the answers show.
fn sample(
    run: &mut Run,
    backend: &mut dyn Backend,
    observer: &mut dyn FnMut(&Event),
) -> Result<Vec<Found>> {
    if run.metadata.chat_template.is_none() {
        return Ok(Vec::new());
    }
    let config = &run.recipe.sample;
    let supervisor = Supervisor::for_prompts(&run.metadata, run.template_kwargs.clone());
    let mut prompts = Vec::with_capacity(config.prompts.len());
    for (key, prompt) in (0..).zip(&config.prompts) {
        let system = config.system.iter().map(|system| Message::new("system", system.as_str()));
        let messages = system.chain([Message::new("user", prompt.as_str())]).collect();
        let tokens = supervisor.prompt_tokens(&record::Prompt::of_messages(messages, None));
        let refused = |error| data::Error::Rows { rows: vec![error], hint: None };
        prompts.push(Prompt { tokens: tokens.map_err(refused)?, key });
    }

    run.models.activate(backend, PartName::Policy)?;
    let sampling =
        Sampling { max_new_tokens: config.max_new_tokens, batch: 8, ..Sampling::default() };
    let (decoder, adapter) = (&run.models.decoder, run.models.policy().adapter.as_deref());
    let speaker = Speaker { decoder, adapter, metadata: &run.metadata };
    let answers = speaker.answer(backend, &prompts, &sampling, &mut |_| Flow::Continue)?;
    let seen = answers
        .iter()
        .map(|answer| SampledAnswer { text: &answer.text, ended: answer.finish == Finish::Stop });
    let seen: Vec<SampledAnswer<'_>> = seen.collect();
    let found = doctor_of(run).after_samples(&mut run.state.history, run.state.step, &seen);
    for (prompt, answer) in run.recipe.sample.prompts.clone().into_iter().zip(answers) {
        let answer = answer.text;
        run.tell(&Event::Sampled { step: run.state.step, prompt, answer }, observer)?;
    }
    Ok(found)
}

fn save(run: &mut Run, backend: &mut dyn Backend, observer: &mut dyn FnMut(&Event)) -> Result<()> {
    let output = run.output();
    let best = run.state.best.is_some().then_some(output.as_path());
    let Run { models, setup, peft: metadata, recipe_text: recipe, manifest, .. } = &*run;
    let serving = output::serving(run);
    let contents = Contents { models, setup, metadata, serving: &serving, recipe, manifest };
    let path = run.store.save(backend, &contents, &run.state, best)?;
    let event = Event::Saved { step: run.state.step, path: path.display().to_string() };
    run.tell(&event, observer)
}

fn summary(run: &Run, status: &'static str) -> Summary {
    let state = &run.state;
    let per_second =
        |count: u64| if state.seconds > 0.0 { count as f64 / state.seconds } else { 0.0 };
    Summary {
        run: run.folder.path().to_owned(),
        status,
        steps: state.step,
        best_step: state.best.as_ref().map_or(state.step, |best| best.step),
        tokens: state.tokens,
        tokens_supervised: state.tokens_supervised,
        tokens_computed: state.tokens_computed,
        tokens_per_s: per_second(state.tokens),
        rows_per_s: per_second(state.rows),
        seconds: state.seconds,
        loss_first: state.loss_first,
        loss_last: state.loss_last,
        validation_best: state.best.as_ref().map(|best| best.score.value),
        validation_by: state.best.as_ref().map(|best| best.score.by.clone()),
        validation_last: state.validation_last,
        findings: run.findings.clone(),
        preference: None,
        classification: None,
        gives_scores: run.method.has_scalar_head,
        learns_from_rewards: run.method.learns_from_rewards(),
        adapter: run.output(),
    }
}
