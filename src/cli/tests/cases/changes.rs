//! Whole documents: import, transactions, schemas, and what `--dry-run` shows of them.

use crate::store::Store;
use crate::{done, json, run, text};

#[tokio::test]
async fn a_dry_run_shows_everything_and_writes_nothing() {
    let store = Store::start().await;
    done(&store, "import - --namespace n", r#"{"a":1,"b":{"x":1.0},"c":3,"d":4}"#).await;
    done(&store, "set n key - --string --secret", "hunter2").await;
    let before = store.revision();
    let file = r#"{"a":1,"b":{"x":1.00},"new":"two\nlines","key":"hunter3"}"#;
    let (plan, words) = done(&store, "import - --namespace n --dry-run --replace", file).await;
    for shown in [
        "+ n new (base) new\n    + two\n    + lines\n",
        "~ n b (base) changes version 1\n      {\n    -   \"x\": 1.0\n    +   \"x\": 1.00\n      }\n",
        "- n c (base) deletes version 1\n    - 3\n",
        "~ n key (base) changes version 1\n    (a secret: not shown)\n",
        "1 added, 2 changed, 2 deleted, 1 unchanged\n",
    ] {
        assert!(plan.contains(shown), "{shown}: {plan}");
    }
    assert!(words.contains("nothing was written") && !plan.contains("hunter"), "{words}{plan}");
    assert!(!plan.contains('\u{1b}'), "no colours in a pipe");

    let (colours, _) = done(&store, "import - --namespace n --dry-run --color always", file).await;
    assert!(colours.contains("\u{1b}[32m+ n new (base)\u{1b}[0m"), "{colours:?}");
    let (plan, _) = done(&store, "import - --namespace n --dry-run --output json", file).await;
    let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
    assert_eq!((&plan["unchanged"], plan["changes"].as_array().unwrap().len()), (&1.into(), 3));
    assert!(!plan.to_string().contains("hunter"));

    let (plan, _) = done(&store, "rollback n b 1 --dry-run", "").await;
    assert!(plan.ends_with("0 added, 0 changed, 0 deleted, 1 unchanged\n"), "{plan}");
    let txn = "txn --compare n a 1 --set n a 2 --delete n c --read n d --dry-run";
    let (plan, _) = done(&store, txn, "").await;
    assert!(plan.contains("~ n a (base) changes version 1\n    - 1\n    + 2\n"), "{plan}");
    assert!(plan.ends_with("0 added, 1 changed, 1 deleted, 0 unchanged\n"), "{plan}");
    let refused = run(&store, "txn --compare n a 7 --set n a 2 --dry-run", "").await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("at version 1, not 7"), "{}", text(&refused.stderr));
    assert_eq!(store.revision(), before, "a dry run wrote something");
}

#[tokio::test]
async fn an_import_that_others_get_in_the_way_of_compares_again() {
    let store = Store::start().await;
    done(&store, "import - --namespace n", r#"{"a":1,"b":1}"#).await;
    store.interfere("n", "b", 2);
    let (_, words) = done(&store, "import - --namespace n", r#"{"a":2,"b":2}"#).await;
    assert!(words.contains("\"b\": version 2, by mallory"), "{words}");
    assert!(words.contains("0 added, 2 changed, 0 deleted, 0 unchanged"), "{words}");
    assert_eq!(store.entry("n", "a").unwrap().version, 2, "written once");
    assert_eq!(&store.entry("n", "b").unwrap().value[..], b"2");
}

#[tokio::test]
async fn an_import_that_always_comes_second_says_who_was_first_and_writes_nothing() {
    let store = Store::start().await;
    done(&store, "import - --namespace n", r#"{"a":1,"b":1}"#).await;
    store.interfere("n", "b", 1000);
    let output = run(&store, "import - --namespace n", r#"{"a":2,"b":2}"#).await;
    let words = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(words.contains("nothing was written") && words.contains("by mallory"), "{words}");
    assert_eq!(store.entry("n", "a").unwrap().version, 1);
}

#[tokio::test]
async fn what_others_do_to_entries_that_the_file_leaves_alone_is_no_conflict() {
    let store = Store::start().await;
    done(&store, "import - --namespace n", r#"{"a":1,"b":1}"#).await;
    store.interfere("n", "b", 1);
    let (_, words) = done(&store, "import - --namespace n", r#"{"a":2}"#).await;
    assert!(!words.contains("mallory"), "{words}");
}

#[tokio::test]
async fn replacing_deletes_what_the_file_lacks_only_when_that_is_agreed_to() {
    let store = Store::start().await;
    done(&store, "import - --namespace n", r#"{"a":1,"b":1}"#).await;
    let refused = run(&store, "import - --namespace n --replace", r#"{"a":2}"#).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("delete \"b\""), "{}", text(&refused.stderr));
    assert_eq!(store.revision(), 1);
    let (_, words) =
        done(&store, "import - --namespace n --replace --yes --comment why", r#"{"a":2}"#).await;
    assert!(words.contains("0 added, 1 changed, 1 deleted"), "{words}");
    assert_eq!(store.revision(), 2, "all in one change");
    assert!(store.entry("n", "b").is_none());
    assert_eq!(store.entry("n", "a").unwrap().comment, "why");
    // What has nothing to delete asks nobody.
    done(&store, "import - --namespace n --replace", r#"{"a":3}"#).await;
}

#[tokio::test]
async fn what_is_too_much_for_one_transaction_is_written_in_parts_on_request_only() {
    let store = Store::start().await;
    let members: Vec<String> = (0..10_001).map(|i| format!("\"k{i:05}\":{i}")).collect();
    let file = format!("{{{}}}", members.join(","));
    let refused = run(&store, "import - --namespace n", &file).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("--in-parts"), "{}", text(&refused.stderr));
    assert_eq!(store.revision(), 0);
    let (_, words) = done(&store, "import - --namespace n --in-parts", &file).await;
    assert!(words.contains("part 2 of 2: 1 entry") && words.contains("10001 added"), "{words}");
    assert_eq!(store.revision(), 2);
}

#[tokio::test]
async fn an_import_keeps_descriptions_and_tags() {
    let store = Store::start().await;
    done(&store, "set n a 1 --description what --tag t", "").await;
    done(&store, "import - --namespace n", r#"{"a":2}"#).await;
    let entry = store.entry("n", "a").unwrap();
    assert_eq!((entry.description.as_str(), entry.tags), ("what", vec!["t".to_owned()]));
}

#[tokio::test]
async fn a_transaction_comes_from_a_document_or_from_options() {
    let store = Store::start().await;
    let yaml = "compare:\n  - {namespace: n, key: a, version: 0}\nsuccess:\n  - {op: set, namespace: n, key: a, value: 1.10}\n  - {op: get, namespace: n, key: b}\nfailure:\n  - {op: get, namespace: n, key: a}\n";
    let (table, _) = done(&store, "txn -", yaml).await;
    assert!(table.contains("1.10") && table.contains("(not there)"), "{table}");
    assert_eq!(&store.entry("n", "a").unwrap().value[..], b"1.10");

    let again = run(&store, "txn - --output json", yaml).await;
    assert_eq!(again.status.code(), Some(1), "a comparison did not hold");
    let answer: serde_json::Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!((&answer["succeeded"], &answer["results"][0]["op"]), (&false.into(), &"get".into()));
    assert!(text(&again.stderr).contains("did not hold"));

    done(&store, "txn --compare n a 1 --set n a -5 --set n c true --comment why", "").await;
    assert_eq!(&store.entry("n", "a").unwrap().value[..], b"-5");
    assert_eq!(store.entry("n", "c").unwrap().comment, "why");
    done(&store, "txn --delete n c", "").await;
    assert!(store.entry("n", "c").is_none());

    for (line, stdin, words) in [
        ("txn -", r#"{"success":[{"op":"set","namespace":"n","key":"k"}]}"#, "success[0].value"),
        ("txn -", r#"{"sucess":[]}"#, "sucess"),
        ("txn --set n k hello", "", "not JSON"),
        ("txn --compare n k x --set n k 1", "", "not a number"),
        ("txn /no/such/file", "", "/no/such/file"),
    ] {
        let output = run(&store, line, stdin).await;
        assert_eq!(output.status.code(), Some(2), "{line}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains(words), "{line}: {}", text(&output.stderr));
    }
}

#[tokio::test]
async fn schemas_are_put_shown_listed_and_deleted() {
    let store = Store::start().await;
    done(&store, "schema put n a - --comment why", "{\"type\": \"number\", \"maximum\": 2.0}")
        .await;
    done(&store, "schema put n b - --format yaml", "type: string\n").await;
    let (text_form, _) = done(&store, "schema get n a", "").await;
    assert_eq!(text_form, "{\n  \"type\": \"number\",\n  \"maximum\": 2.0\n}\n");
    let listed = json(&store, "schema list n").await;
    assert_eq!(
        (&listed[0]["comment"], &listed[1]["schema"]["type"]),
        (&"why".into(), &"string".into())
    );
    let (yaml, _) = done(&store, "schema get n a --output yaml", "").await;
    assert!(yaml.contains("maximum: 2.0\n"), "{yaml}");
    let conflict = run(&store, "schema put n a - --expected-version 0", "true").await;
    assert_eq!(conflict.status.code(), Some(1));
    assert!(text(&conflict.stderr).contains("VERSION_CONFLICT"));
    done(&store, "schema delete n a", "").await;
    let absent = run(&store, "schema get n a", "").await;
    assert_eq!(absent.status.code(), Some(1));
    assert_eq!(run(&store, "schema put n a -", "{").await.status.code(), Some(2));
}

#[tokio::test]
async fn a_yaml_number_is_never_rounded() {
    let store = Store::start().await;
    let file = "big: 12345678901234567890123\nprice: 0.10\n";
    done(&store, "import - --namespace n --format yaml", file).await;
    assert_eq!(&store.entry("n", "big").unwrap().value[..], b"12345678901234567890123");
    assert_eq!(&store.entry("n", "price").unwrap().value[..], b"0.10");
    let refused = run(&store, "import - --namespace n --format yaml", "a: .inf\n").await;
    assert_eq!(refused.status.code(), Some(2));
    let (yaml, _) = done(&store, "get n big --output yaml", "").await;
    assert!(yaml.contains("value: 12345678901234567890123\n"), "{yaml}");
}
