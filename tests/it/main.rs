//! Integration tests: one binary, a module per subject, real sockets and the real program.

mod world;

mod activation;
mod bad_input;
mod by_proxy;
mod clients;
mod commands;
mod config;
mod connecting;
mod docs;
mod doctor;
mod early_answer;
mod examples;
mod expect;
mod forwarding;
mod grant;
mod hooks;
mod http2_clients;
mod http2_upstream;
mod https;
mod independent;
mod login;
mod logout;
mod oauth2;
mod refresh;
mod replay;
mod request_log;
mod serving;
mod soak;
mod status;
mod store_files;
mod takeover;
mod tls;
mod token_answers;
mod unix_sockets;
mod unknown_outcome;
