use clap::CommandFactory as _;

use super::*;

/// The most lines of `--help` of one command.
const MAX_HELP_LINES: usize = 50;

#[test]
fn the_definition_of_the_command_line_is_sound() {
    Cli::command().debug_assert();
}

fn every_command(command: &mut clap::Command, path: &str, visit: &mut dyn FnMut(&str, &str)) {
    let path = format!("{path} {}", command.get_name()).trim().to_owned();
    let line = path.split(' ').chain(["--help"]);
    visit(&path, &Cli::try_parse_from(line).unwrap_err().to_string());
    let names: Vec<String> =
        command.get_subcommands().map(|inner| inner.get_name().to_owned()).collect();
    for name in names.iter().filter(|name| *name != "help") {
        every_command(command.find_subcommand_mut(name).unwrap(), &path, visit);
    }
}

#[test]
fn the_commands() {
    let mut cli = Cli::command();
    cli.build();
    let mut names = String::new();
    every_command(&mut cli, "", &mut |path, _| {
        names.push_str(path);
        names.push('\n');
    });
    insta::assert_snapshot!(names);
}

#[test]
fn help_is_short_and_every_command_says_what_it_does() {
    let mut cli = Cli::command();
    cli.build();
    every_command(&mut cli, "", &mut |path, help| {
        assert!(help.lines().count() <= MAX_HELP_LINES, "{path}:\n{help}");
        let first = help.lines().next().unwrap_or_default();
        assert!(!first.is_empty() && !first.starts_with("Usage"), "{path}: {help}");
    });
}

#[test]
fn no_secret_is_taken_from_a_flag() {
    let mut cli = Cli::command();
    cli.build();
    every_command(&mut cli, "", &mut |path, help| {
        for word in ["--token ", "--password ", "--secret "] {
            assert!(!help.contains(word), "{path} takes {word}");
        }
    });
}

#[test]
fn flags_of_settings_reach_the_settings() {
    let line = ["keyward", "serve", "--gateway-max-body", "1MiB", "--gateway-behind-proxy"];
    let Some(Command::Serve(serve)) = Cli::try_parse_from(line).unwrap().command else {
        panic!("not serve")
    };
    let text = format!("{serve:?}");
    assert!(text.contains(r#""gateway.max-body": ["1MiB"]"#), "{text}");
    assert!(text.contains(r#""gateway.behind-proxy": ["true"]"#), "{text}");
}

#[test]
fn wrong_command_lines_are_refused() {
    for line in [
        &["keyward", "key", "identify", "asiri_live_x"][..],
        &["keyward", "key", "create", "--name", "n"],
        &["keyward", "key", "edit", "key_1"],
        &["keyward", "--json"],
        &["keyward", "serv"],
    ] {
        assert!(Cli::try_parse_from(line).is_err(), "{line:?}");
    }
}
