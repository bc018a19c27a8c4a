//! What every file format gets from this layer, tried with CSV.

use connect::{Limits, PartCursor, Source};
use model::Remedy;

use super::reading::{Folder, ONE_BY_ONE, gzip, read, read_all, read_news, try_read};

fn csv(path: &str) -> crate::csv::Source {
    let config = spec::CsvSource {
        path: path.to_owned(),
        delimiter: b',',
        quote: Some(b'"'),
        encoding: spec::Encoding::Utf8,
        null_values: Vec::new(),
    };
    crate::csv::Source::new(&config, model::Contract::default(), None, &[])
}

/// Reads a file, writes it anew so many seconds later, and reads the news.
async fn rewrite(
    before: impl AsRef<[u8]>,
    after: impl AsRef<[u8]>,
    seconds: u64,
) -> (Vec<String>, Vec<String>, Vec<String>) {
    let folder = Folder::new();
    let path = folder.write("f.csv", before);
    let source = csv(&path);
    let old = read_all(&source, Limits::default()).await;
    folder.write_at("f.csv", after, seconds);
    let (_, new, notes) = read_news(&source, &path, old.last_cursor()).await;
    let ids = |rows: &[super::reading::Row]| {
        rows.iter().map(|row| row.id.replace(&path, "")).collect::<Vec<_>>()
    };
    (ids(&old.rows), ids(&new.rows), notes)
}

fn generation(id: &str) -> &str {
    id.split_once(':').unwrap().0
}

#[tokio::test]
async fn a_truncated_gzip_file_stops_the_run() {
    let folder = Folder::new();
    let rows: String = (0..50_000).map(|row| format!("{row},x{}\n", row * 7919)).collect();
    let whole = gzip(format!("a,b\n{rows}").as_bytes());
    for cut in [20, whole.len() / 2, whole.len() - 1] {
        let path = folder.write("f.csv.gz", &whole[..cut]);
        let source = csv(&path);
        let (_, error) = try_read(&source, &path, "", Limits::default()).await;
        let error = error.unwrap();
        assert_eq!(error.remedy, Remedy::Stop);
        assert!(error.what.contains("f.csv.gz") && error.what.contains("gzip"), "{error}");
    }
}

#[tokio::test]
async fn a_file_that_changed_behind_its_cursor_is_not_read_on() {
    let folder = Folder::new();
    let path = folder.write("f.csv", "a\n1\n2\n3\n");
    let source = csv(&path);
    let reading = read_all(&source, ONE_BY_ONE).await;
    folder.write("f.csv", "a\n9\n2\n3\n");
    let (rest, error) = try_read(&source, &path, &reading.cursors[0].0, ONE_BY_ONE).await;
    assert!(rest.rows.is_empty());
    assert!(error.unwrap().what.contains("rewritten"));
}

#[tokio::test]
async fn a_cursor_of_something_else_stops_the_run() {
    let folder = Folder::new();
    let path = folder.write("f.csv", "a\n1\n");
    let cursors = [PartCursor { part: path.clone(), cursor: "42".to_owned() }];
    let error = csv(&path).parts(&cursors, false).await.unwrap_err();
    assert_eq!(error.remedy, Remedy::Stop);
}

#[tokio::test]
async fn a_rewritten_file_is_read_again_under_new_ids() {
    for (before, after) in [
        // One byte in the middle, with the size unchanged.
        ("a\n1\n2\n3\n", "a\n1\n7\n3\n"),
        // Shorter, longer at the front, and grown in the middle of its last line.
        ("a\n1\n2\n3\n", "a\n1\n"),
        ("a\n1\n2\n3\n", "a\n0\n1\n2\n3\n"),
        ("a\n1\n2\n3", "a\n1\n2\n34\n"),
        ("a\n1\n2\n3", "a\n1\n2\n3x"),
    ] {
        let (old, new, notes) = rewrite(before, after, 60).await;
        assert_eq!(new.len(), after.lines().count() - 1, "{after:?}");
        assert_ne!(generation(&old[0]), generation(&new[0]), "{after:?}");
        assert!(notes[0].contains("rewritten"), "{notes:?}");
        let (_, again, _) = rewrite(before, after, 90).await;
        assert_eq!(new, again, "the same content gets the same ids");
    }
}

#[tokio::test]
async fn two_contents_that_follow_one_cursor_get_different_ids() {
    let (_, one, _) = rewrite("a\n1\n2\n", "a\n1\n7\n", 60).await;
    let (_, other, _) = rewrite("a\n1\n2\n", "a\n1\n8\n", 60).await;
    assert_ne!(generation(&one[0]), generation(&other[0]));
}

#[tokio::test]
async fn a_change_that_leaves_size_and_time_as_they_were_is_found_if_the_file_is_fresh() {
    let folder = Folder::new();
    let path = folder.path("f.csv");
    let time = std::time::SystemTime::now();
    let write = |content: &str| {
        std::fs::write(&path, content).unwrap();
        std::fs::File::options().append(true).open(&path).unwrap().set_modified(time).unwrap();
    };
    write("a\n1\n");
    let source = csv(&path);
    let old = read_all(&source, Limits::default()).await;
    write("a\n2\n");
    let (_, new, _) = read_news(&source, &path, old.last_cursor()).await;
    assert_eq!(new.texts(), [["2"]]);
}

#[tokio::test]
async fn a_grown_file_gives_its_new_records_only() {
    for (before, after, expected) in [
        ("a\n1\n2\n", "a\n1\n2\n3\n4\n", 2),
        ("a\r\n1\r\n2\r\n", "a\r\n1\r\n2\r\n3\r\n", 1),
        // The last line had no end, half of one, or blank lines behind it.
        ("a\n1\n2", "a\n1\n2\n3\n", 1),
        ("a\n1\n2", "a\n1\n2\r\n3", 1),
        ("a\r\n1\r\n2\r", "a\r\n1\r\n2\r\n3\r\n", 1),
        ("a\n1\n2\n\n\n", "a\n1\n2\n\n\n\n3\n", 1),
        ("a\n1\n\"2\"", "a\n1\n\"2\"\n3", 1),
    ] {
        for pack in [<[u8]>::to_vec, gzip as fn(&[u8]) -> Vec<u8>] {
            let (before, after) = (pack(before.as_bytes()), pack(after.as_bytes()));
            let (old, new, notes) = rewrite(&before, &after, 60).await;
            assert!(notes.is_empty(), "{notes:?}");
            assert_eq!(new.len(), expected);
            assert_eq!(generation(&old[0]), generation(&new[0]));
            let folder = Folder::new();
            let path = folder.write("f.csv", &after);
            let whole = read_all(&csv(&path), Limits::default()).await;
            let all = whole.positions();
            let line = |id: &String| id.split_once(':').unwrap().1.parse::<u64>().unwrap();
            let found: Vec<u64> = old.iter().chain(&new).map(line).collect();
            assert_eq!(found, all, "lines are counted as in one reading");
        }
    }
}

#[tokio::test]
async fn a_gzip_file_grows_by_members() {
    let mut grown = gzip(b"a\n1\n");
    let before = grown.clone();
    grown.extend(gzip(b"2\n3\n"));
    let (_, new, notes) = rewrite(before, grown, 60).await;
    assert_eq!((new.len(), notes.len()), (2, 0));
}

#[tokio::test]
async fn an_unchanged_or_touched_file_has_no_news() {
    for content in ["a\n1\n2\n", "a\n1\n2", "a\r1\r2\r", "a\n1\n2\n\n"] {
        for seconds in [0, 60] {
            let (old, new, notes) = rewrite(content, content, seconds).await;
            assert_eq!((old.len(), new.len(), notes.len()), (2, 0, 0));
        }
    }
}

#[tokio::test]
async fn a_file_that_was_read_half_has_news_though_it_is_unchanged() {
    let folder = Folder::new();
    let path = folder.write("f.csv", "a\n1\n2\n3\n");
    let source = csv(&path);
    let reading = read_all(&source, ONE_BY_ONE).await;
    let (_, rest, _) = read_news(&source, &path, &reading.cursors[0].0).await;
    assert_eq!(rest.texts(), [["2"], ["3"]]);
}

#[tokio::test]
async fn a_file_that_was_emptied_is_noted_and_has_no_news_after_that() {
    let folder = Folder::new();
    let path = folder.write("f.csv", "a\n1\n");
    let source = csv(&path);
    let old = read_all(&source, Limits::default()).await;
    folder.write_at("f.csv", "a\n", 60);
    let (part, empty, notes) = read_news(&source, &path, old.last_cursor()).await;
    assert_eq!((empty.rows.len(), notes.len()), (0, 1));
    let (none, ..) = read_news(&source, &path, &part.unwrap().cursor).await;
    assert_eq!(none, None);
}

#[tokio::test]
async fn a_full_reading_keeps_the_ids_unless_the_content_changed() {
    let folder = Folder::new();
    let path = folder.write("f.csv", "a\n1\n2\n");
    let source = csv(&path);
    let first = read_all(&source, Limits::default()).await;
    let cursors = [PartCursor { part: path.clone(), cursor: first.last_cursor().to_owned() }];
    for (content, seconds, same) in
        [("a\n1\n2\n", 0, true), ("a\n1\n2\n3\n", 60, true), ("a\n1\n3\n", 90, false)]
    {
        folder.write_at("f.csv", content, seconds);
        let part = source.parts(&cursors, true).await.unwrap().with_news.remove(0);
        let again = read(&source, &path, &part.cursor, Limits::default()).await;
        assert_eq!(again.rows.len(), content.lines().count() - 1);
        assert_eq!(again.rows[0].id == first.rows[0].id, same, "{content:?}");
    }
}

#[tokio::test]
async fn parts_are_ordered_and_lost_files_are_named() {
    let folder = Folder::new();
    for name in ["b.csv", "a.csv"] {
        folder.write(name, "a\n1\n");
    }
    folder.write("header-only.csv", "a\n");
    folder.write("c.csv.gz", gzip(b"a\n1\n"));
    let source = csv(&folder.path("*.csv*"));
    let gone = PartCursor { part: folder.path("gone.csv"), cursor: String::new() };
    let parts = source.parts(std::slice::from_ref(&gone), false).await.unwrap();
    let names: Vec<_> = parts.with_news.iter().map(|part| part.name.clone()).collect();
    assert_eq!(names, ["a.csv", "b.csv", "c.csv.gz"].map(|name| folder.path(name)));
    assert_eq!(parts.gone, [gone.part]);
    for part in &parts.with_news {
        let reading = read(&source, &part.name, &part.cursor, Limits::default()).await;
        assert!(part.span >= *reading.positions().last().unwrap());
    }
}

#[tokio::test]
async fn a_reading_that_nobody_takes_stops_ahead() {
    let folder = Folder::new();
    let rows: String = (0..10_000).map(|row| format!("{row}\n")).collect();
    let path = folder.write("f.csv", format!("a\n{rows}"));
    let mut reader = csv(&path).open(&path, "", 0, ONE_BY_ONE).await.unwrap();
    reader.next().await.unwrap();
    drop(reader);
}
