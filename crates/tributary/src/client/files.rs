//! Reads pipeline files for the server, which parses them.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use wire::control::PipelineSource;

use crate::failure::Failure;

/// Reads files and the YAML files of folders, sorted by name within a folder.
pub(crate) fn read_all(paths: &[PathBuf]) -> Result<Vec<PipelineSource>, Failure> {
    let mut sources = Vec::new();
    for path in paths {
        if !path.is_dir() {
            sources.push(read(path)?);
            continue;
        }
        let files = yaml_files(path).map_err(|error| unreadable(path, &error))?;
        if files.is_empty() {
            let what = format!("there are no pipelines in {}", path.display());
            return Err(Failure::new(
                what,
                "it has no *.yaml or *.yml files",
                "name another folder",
            ));
        }
        for file in files {
            sources.push(read(&file)?);
        }
    }
    Ok(sources)
}

/// Reads one file; `-` is stdin.
pub(crate) fn read(path: &Path) -> Result<PipelineSource, Failure> {
    if path == Path::new("-") {
        let yaml = io::read_to_string(io::stdin()).map_err(|error| unreadable(path, &error))?;
        return Ok(PipelineSource { file: "stdin".to_owned(), yaml });
    }
    let yaml = fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    Ok(PipelineSource { file: path.display().to_string(), yaml })
}

fn yaml_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if path.is_file() && matches!(extension, Some("yaml" | "yml")) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    let what = format!("{} cannot be read", path.display());
    Failure::new(what, error, "check the name and the rights")
}
