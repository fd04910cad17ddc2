use crate::house::House;

const HELP: &str = "\
Fine-tunes language models, and proves that they got better

Usage: tunesmith [OPTIONS] <COMMAND>

Commands:
  quickstart  Teach a small model a task, and prove that it learned: minutes on two cores
  init        Look at data and write a commented recipe fit for them
  check       Look for what is wrong in the data of a recipe, and show what is learned of them
  prepare     Prepare the data of a recipe, for every run that takes them
  plan        Say what a recipe would take, before anything is loaded
  distill     Write training targets by asking a teacher, without its long prompt
  train       Train as a recipe says
  generate    Answer prompts with a base model, an adapter or a run
  chat        Talk to a base model, an adapter or a run
  merge       Make one model of a base and an adapter, and compare it with what was trained
  push        Put an adapter or a model on the model hub, private unless told otherwise
  bench       Measure how fast this machine trains and answers, beside what it could at best
  show        Show a recipe with every value that a run would take, and why
  schema      Print the JSON schema of recipes, for editors
  help        Print this message or the help of the given subcommand(s)

Options:
  -h, --help     Print help
  -V, --version  Print version

Global options:
      --json              Write JSON to standard output and human text to standard error
      --threads <N>       Compute threads [default: what the machine and its limits allow]
      --isa <ISA>         Instruction set: portable, avx2, avx512, avx512bf16 or neon [default: the best there is]
      --precision <TYPE>  Type that matrix products multiply in: bf16 or f32 [default: bf16]
      --offline           Never touch the network
";

#[test]
fn help_lists_what_works() {
    let ended = House::new().run(&["--help"]).done();
    assert_eq!(ended.stdout, HELP);
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
