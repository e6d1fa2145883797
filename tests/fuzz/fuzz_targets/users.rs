#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| dutybound_fuzz::check("users", data));
