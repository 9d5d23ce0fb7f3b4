//! Tokens that show by their beginning that they are secrets.

/// A token known by its prefix.
struct Shape {
    prefix: &'static [u8],
    /// Fewest characters after the prefix.
    least: usize,
    /// What may follow, beside letters and digits.
    also: &'static [u8],
}

const fn shape(prefix: &'static str, least: usize, also: &'static str) -> Shape {
    Shape { prefix: prefix.as_bytes(), least, also: also.as_bytes() }
}

/// Sorted by the first byte, so that only those of that byte are compared.
const SHAPES: &[Shape] = &[
    shape("1//0", 24, "-_"),
    shape("ABSK", 40, "+/="),
    shape("ABIA", 16, ""),
    shape("ACCA", 16, ""),
    shape("AGE-SECRET-KEY-1", 20, ""),
    shape("AIza", 30, "-_"),
    shape("AKCp", 40, ""),
    shape("AKIA", 16, ""),
    shape("ASIA", 16, ""),
    shape("ATATT3", 20, "-_="),
    shape("ATBB", 24, ""),
    shape("ATCTT3", 20, "-_="),
    shape("BSA", 24, "-_"),
    shape("CCIPAT_", 20, "_"),
    shape("EAAA", 40, "-_"),
    shape("EZAK", 40, ""),
    shape("FlyV1 fm2_", 20, "+/=,_"),
    shape("GOCSPX-", 20, "-_"),
    shape("GR1348941", 16, "-_"),
    // The base64 of a PEM private key: PRIVATE, RSA, OPENSSH, EC.
    shape("LS0tLS1CRUdJTiBQUklWQVRF", 16, "+/="),
    shape("LS0tLS1CRUdJTiBSU0Eg", 16, "+/="),
    shape("LS0tLS1CRUdJTiBPUEVOU1NI", 16, "+/="),
    shape("LS0tLS1CRUdJTiBFQy", 16, "+/="),
    shape("NRAK-", 20, ""),
    shape("NRII-", 20, "-_"),
    shape("PMAK-", 20, "-"),
    shape("SG.", 20, "-_."),
    shape("SWMTKN-1-", 20, "-"),
    shape("apify_api_", 16, ""),
    shape("api_org_", 20, ""),
    shape("bkua_", 20, ""),
    shape("cio", 28, ""),
    shape("crsr_", 20, "_"),
    shape("csk-", 24, ""),
    shape("ctx7sk-", 16, "-"),
    shape("dapi", 32, "-"),
    shape("dckr_oat_", 16, "-_"),
    shape("dckr_pat_", 16, "-_"),
    shape("doo_v1_", 20, ""),
    shape("dop_v1_", 20, ""),
    shape("dor_v1_", 20, ""),
    shape("dp.ct.", 20, ""),
    shape("dp.pt.", 20, ""),
    shape("dp.st.", 20, "._-"),
    shape("e2b_", 20, ""),
    shape("esecret_", 16, ""),
    // A JSON web token: base64 of `{"`, then more parts.
    shape("eyJ", 16, "-_.="),
    shape("fc-", 32, ""),
    shape("figd_", 16, "-_"),
    shape("figo_", 16, "-_"),
    shape("fm2_", 20, "+/=,_"),
    shape("fo1_", 20, "-_"),
    shape("fw_", 20, ""),
    shape("ghp_", 16, "_"),
    shape("gho_", 16, "_"),
    shape("ghu_", 16, "_"),
    shape("ghs_", 16, "_.-"),
    shape("ghr_", 16, "_"),
    shape("github_pat_", 16, "_"),
    shape("glagent-", 12, "-_."),
    shape("glcbt-", 12, "-_."),
    shape("gldt-", 12, "-_."),
    shape("glft-", 12, "-_."),
    shape("glimt-", 12, "-_."),
    shape("gloas-", 12, "-_."),
    shape("glpat-", 12, "-_."),
    shape("glptt-", 12, "-_."),
    shape("glrt-", 12, "-_."),
    shape("glsoat-", 12, "-_."),
    shape("glc_", 24, "+/="),
    shape("glsa_", 20, "_"),
    shape("gsk_", 20, ""),
    shape("hf_", 16, ""),
    shape("hvb.", 20, "-_"),
    shape("hvr.", 20, "-_"),
    shape("hvs.", 20, "-_"),
    shape("jina_", 20, "-_"),
    shape("key-", 32, ""),
    shape("key_", 40, ""),
    shape("lin_api_", 16, ""),
    shape("lin_oauth_", 16, ""),
    shape("lsv2_", 20, "_"),
    shape("nfp_", 20, ""),
    shape("npm_", 20, ""),
    shape("ntn_", 20, ""),
    shape("nvapi-", 20, "-_"),
    shape("ops_", 40, "-_="),
    shape("oy2", 40, ""),
    shape("pat", 40, "."),
    shape("pcsk_", 20, "_"),
    shape("perm:", 24, "-_.="),
    shape("phx_", 20, ""),
    shape("pplx-", 20, ""),
    shape("pscale_oauth_", 20, "-_."),
    shape("pscale_pw_", 20, "-_."),
    shape("pscale_tkn_", 20, "-_."),
    shape("pypi-", 32, "-_"),
    shape("r8_", 20, ""),
    shape("re_", 28, "_"),
    shape("rk_live_", 12, "_"),
    shape("rk_test_", 12, "_"),
    shape("rnd_", 20, ""),
    shape("rpa_", 30, ""),
    shape("rubygems_", 24, ""),
    shape("sb_secret_", 16, "-_"),
    shape("sbp_", 20, "_"),
    shape("secret_", 40, ""),
    shape("sgamp_", 20, "_"),
    shape("sgp_", 20, "_"),
    shape("shpat_", 20, ""),
    shape("shpca_", 20, ""),
    shape("shppa_", 20, ""),
    shape("shpss_", 20, ""),
    shape("sk-", 16, "-_"),
    shape("sk_", 40, ""),
    shape("sk_live_", 12, "_"),
    shape("sk_test_", 12, "_"),
    shape("sl.", 60, "-_."),
    shape("sntrys_", 20, "+/=_"),
    shape("sntryu_", 20, "_"),
    shape("sq0atp-", 16, "-_"),
    shape("sq0csp-", 16, "-_"),
    shape("tgp_v1_", 20, "-_"),
    shape("tskey-", 16, "-"),
    shape("tvly-", 16, "-_"),
    shape("vck_", 20, ""),
    shape("vcp_", 20, ""),
    shape("whsec_", 12, "+/="),
    shape("xai-", 20, "-_"),
    shape("xapp-", 8, "-"),
    shape("xkeysib-", 20, "-"),
    shape("xoxa-", 8, "-"),
    shape("xoxb-", 8, "-"),
    shape("xoxc-", 8, "-"),
    shape("xoxd-", 8, "-%+/="),
    shape("xoxe-", 8, "-"),
    shape("xoxe.", 8, "-."),
    shape("xoxp-", 8, "-"),
    shape("xoxr-", 8, "-"),
    shape("xoxs-", 8, "-"),
    shape("ya29.", 16, "-_."),
];

/// The rows of [`SHAPES`] that begin with each byte of ASCII: the first one, and the one after the last.
const ROWS: [(usize, usize); 128] = {
    let mut rows = [(0, 0); 128];
    let mut at = 0;
    while at < SHAPES.len() {
        let first = SHAPES[at].prefix[0] as usize;
        if rows[first].1 == 0 {
            rows[first].0 = at;
        }
        rows[first].1 = at + 1;
        at += 1;
    }
    rows
};

/// Bytes of the token that `text` begins with. A token has a digit after its prefix: `sk-learn-contrib-project` is a
/// name.
pub(in super::super) fn token_length(text: &[u8]) -> Option<usize> {
    if text.first()?.is_ascii_digit()
        && let Some(length) = bot_token(text)
    {
        return Some(length);
    }
    let (from, to) = *ROWS.get(usize::from(*text.first()?))?;
    SHAPES[from..to].iter().find_map(|shape| {
        let rest = text.strip_prefix(shape.prefix)?;
        let length = rest.iter().take_while(|b| b.is_ascii_alphanumeric() || shape.also.contains(b)).count();
        let fits = length >= shape.least && rest[..length].iter().any(u8::is_ascii_digit);
        fits.then_some(shape.prefix.len() + length)
    })
}

/// A chat bot's: its number, `:AA`, and 33 more.
fn bot_token(text: &[u8]) -> Option<usize> {
    let digits = text.iter().take_while(|b| b.is_ascii_digit()).count();
    let rest = text[digits..].strip_prefix(b":AA").filter(|_| (8..=12).contains(&digits))?;
    let length = rest.iter().take_while(|b| b.is_ascii_alphanumeric() || b"-_".contains(b)).count();
    (length >= 30).then_some(digits + 3 + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_of_one_first_byte_stand_together() {
        assert!(SHAPES.is_sorted_by_key(|shape| shape.prefix[0]));
    }
}
