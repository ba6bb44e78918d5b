use super::*;

#[test]
fn flags_stand_over_the_file() {
    let file = parse("site = 'porto'\nwan_limit = '20mbit'\nno_mdns = true\npeer = ['/ip4/10.0.0.1/tcp/1']")
        .expect("valid");
    let both = from_flags(&["--site", "lisbon", "--no-mdns=false"]).over(file);
    assert_eq!(both.site.expect("given").as_str(), "lisbon");
    assert_eq!(both.wan_limit, Some(Rate(2_500_000)));
    assert_eq!(both.no_mdns, Some(false));
    assert_eq!(both.peer.len(), 1);
    assert_eq!(from_flags(&["--no-mdns"]).no_mdns, Some(true));
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_name() {
    let error = format!("{:#}", parse("wan_limits = '20mbit'").expect_err("unknown"));
    assert!(error.contains("wan_limit?"), "{error}");
    let error = format!("{:#}", parse("wan_limit = 'fast'").expect_err("no rate"));
    assert!(error.contains("50mbit"), "{error}");
    let error = format!("{:#}", parse("site = '../x'").expect_err("no name"));
    assert!(error.contains("site name"), "{error}");
}

#[test]
fn roles_and_niceness_are_known_words_and_numbers() {
    let file = parse("role = 'seed'\nmetered = true\nnice = 5").expect("valid");
    let both = from_flags(&["--role", "leech", "--metered=false"]).over(file);
    assert_eq!((both.role, both.metered, both.nice), (Some(Role::Leech), Some(false), Some(5)));
    assert_eq!(from_flags(&["--metered"]).metered, Some(true));
    let error = format!("{:#}", parse("role = 'boss'").expect_err("no role"));
    assert!(error.contains("leech"), "{error}");
    assert_eq!(default_cache_size(Role::Seed), Size(100 << 30));
    assert_eq!(default_cache_size(Role::default()), Size(20 << 30));
}

#[test]
fn a_file_cannot_say_more_than_a_flag() {
    let dir = tempfile::tempdir().expect("a folder");
    let (key, root) = (dir.path().join("key"), dir.path().join("root.json"));
    SiteKey::generate(&key).expect("a new file");
    std::fs::write(&root, "{}").expect("room");
    let nice = |nice: u8| {
        let text = format!("site = 'x'\norigin = '/x'\nsite_key = {key:?}\ntrust = {root:?}\nnice = {nice}");
        parse(&text).expect("valid").resolve()
    };
    assert_eq!(nice(19).expect("valid").nice, 19);
    assert!(nice(20).expect_err("too nice").to_string().contains("0 to 19"));
}

#[test]
fn a_push_is_checked_before_it_starts() {
    let dir = tempfile::tempdir().expect("a folder");
    let token = dir.path().join("token");
    std::fs::write(&token, "secret\n").expect("room");
    let url: PushUrl = "https://prometheus.example.com/api/v1/write".parse().expect("valid");
    let config = push(Some(url.clone()), None, Some(&token)).expect("valid").expect("somewhere");
    assert_eq!(config.interval, Duration::from_secs(60));
    assert!(!format!("{config:?}").contains("secret"));
    assert!(push(None, Some(60), None).is_err() && push(Some(url.clone()), Some(1), None).is_err());
    assert!(push(Some(url), None, Some(dir.path())).is_err());
    let error = format!("{:#}", parse("push_url = 'prometheus:9090'").expect_err("no address"));
    assert!(error.contains("api/v1/write"), "{error}");
}

#[test]
fn what_is_missing_is_named() {
    let error = from_flags(&["--site", "x"]).resolve().expect_err("incomplete").to_string();
    assert!(
        error.contains("--site-key") && error.contains("--trust") && !error.contains("--site NAME"),
        "{error}"
    );
}
