use crate::house::House;

const HELP: &str = "\
Fine-tunes language models, and proves that they got better

Usage: tunesmith [OPTIONS] <COMMAND>

Commands:
  quickstart  Teach a small model a task and measure what it learned: a few minutes on two cores
  init        Write a commented recipe that fits your data
  check       Check the data of a recipe, and show what the model learns from them
  prepare     Tokenize and check the data of a recipe ahead of training
  plan        Estimate memory, steps and time without loading weights
  distill     Write training rows with the answers of a teacher model
  pairs       Make preference pairs: a person, a judge or a reward model chooses the better of two answers
  train       Train from a recipe
  generate    Answer prompts with a base model, an adapter or a run
  chat        Talk to a base model, an adapter or a run
  score       Score the answers of a file with a reward model, or classify its texts
  merge       Merge an adapter into its base model, and verify the result
  push        Upload an adapter or a model to the model hub, private by default
  bench       Measure the speed of training and generation on this machine
  show        Show a recipe with all its values, and where each comes from
  schema      Print the JSON schema of recipes, for editors
  help        Print this message or the help of the given subcommand(s)

Options:
  -h, --help     Print help
  -V, --version  Print version

Global options:
      --json              Write JSON to standard output and human text to standard error
      --threads <N>       Compute threads [default: what the machine and its limits allow]
      --isa <ISA>         Instruction set: portable, avx2, avx512, avx512bf16, amx or neon [default: the best there is]
      --precision <TYPE>  Type that matrix products multiply in: bf16 or f32 [default: bf16]
      --offline           Never touch the network
";

#[test]
fn help_lists_what_works() {
    let ended = House::new().run(&["--help"]).done();
    assert_eq!(ended.stdout, HELP);
}

#[test]
fn every_command_has_a_paragraph_and_an_example() {
    let house = House::new();
    let commands = HELP.split_once("Commands:\n").unwrap().1.split_once("\n\n").unwrap().0;
    for line in commands.lines().filter(|line| !line.contains("the given subcommand")) {
        let (name, summary) = line.trim().split_once("  ").unwrap();
        let help = house.run(&[name, "--help"]).done().stdout;
        let (head, usage) = help.split_once("\n\nUsage: ").unwrap();
        let (first, paragraph) = head.split_once("\n\n").unwrap();
        assert_eq!(first, summary.trim());
        assert!(paragraph.len() > 60 && paragraph.ends_with('.'), "{name}: {paragraph}");
        assert!(usage.contains(&format!("Examples:\n  tunesmith {name}")), "{name}: {usage}");
    }
}

#[test]
fn the_help_of_train_lists_every_key() {
    let help = House::new().run(&["train", "--help"]).done().stdout;
    for part in
        ["tunesmith train runs/recipe-001 --resume", "train.learning_rate", "data.train[].path"]
    {
        assert!(help.contains(part), "{part} is not in {help}");
    }
}

#[test]
fn a_wrong_command_ends_with_2() {
    let house = House::new();
    let ended = house.run(&["trian", "--json"]);
    assert_eq!(ended.code, 2);
    assert!(ended.stderr.contains("a similar subcommand exists: 'train'"), "{}", ended.stderr);
    let error = &ended.result()["error"];
    assert_eq!(error["code"], "command");
    assert_eq!(error["message"], "unrecognized subcommand 'trian'");
    assert_eq!(house.run(&[]).code, 2);
}
