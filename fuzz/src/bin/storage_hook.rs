//! libFuzzer over the bodies of Cinder's and Manila's hooks: bytes as libFuzzer changes them, and documents
//! as we do.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::storage_hook(data));

libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, most: usize, seed: u32| {
    fuzz::mutate::with_libfuzzer(data, size, most, seed, false)
});
