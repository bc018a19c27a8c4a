//! The files of a pattern.

use std::path::Path;

use connect::Error;

/// Returns the paths of the files that `pattern` matches, in their order, never empty.
///
/// A pattern that is the path of a file means that file, whatever characters it has.
///
/// # Errors
///
/// When the pattern is not well formed or matches no file.
pub(super) fn list(pattern: &str) -> Result<Vec<String>, Error> {
    if Path::new(pattern).is_file() {
        return Ok(vec![pattern.to_owned()]);
    }
    let matches = glob::glob(pattern).map_err(|cause| {
        Error::stop(
            format!("`{pattern}` is not a path or pattern"),
            "in patterns `*` stands for any text, `?` for one character, `[ab]` for one of these, \
             `**` for any folders",
        )
        .because(cause)
    })?;
    let mut paths = Vec::new();
    for found in matches {
        let path = found.map_err(|cause| {
            Error::stop(
                format!("a folder that `{pattern}` goes through cannot be read"),
                "give the user of the extractor the right to read it",
            )
            .because(cause)
        })?;
        if !path.is_file() {
            continue;
        }
        match path.into_os_string().into_string() {
            Ok(path) => paths.push(path),
            Err(path) => {
                return Err(Error::stop(
                    format!("the name of file `{}` is not UTF-8", path.to_string_lossy()),
                    "rename the file",
                ));
            }
        }
    }
    if paths.is_empty() {
        let folder = std::env::current_dir()
            .map_or_else(|_| "(unknown)".to_owned(), |path| path.display().to_string());
        return Err(Error::stop(
            format!("no file matches `{pattern}`; the working directory is `{folder}`"),
            "check `path`: it is relative to the directory the extractor works in",
        ));
    }
    paths.sort_unstable();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_without_a_file_names_itself_and_the_working_directory() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("a.csv")).unwrap();
        let pattern = format!("{}/*.csv", folder.path().display());
        let error = list(&pattern).unwrap_err();
        let here = std::env::current_dir().unwrap();
        assert!(error.what.contains(&pattern), "{error}");
        assert!(error.what.contains(here.to_str().unwrap()), "{error}");
        assert_eq!(error.remedy, model::Remedy::Stop);
    }

    #[test]
    fn files_come_in_the_order_of_their_paths_and_odd_names_are_found() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.csv", "a.csv", "c[1].csv", "d.txt"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let root = folder.path().display();
        assert_eq!(
            list(&format!("{root}/*.csv")).unwrap(),
            ["a.csv", "b.csv", "c[1].csv"].map(|name| format!("{root}/{name}"))
        );
        assert_eq!(list(&format!("{root}/c[1].csv")).unwrap().len(), 1);
    }
}
