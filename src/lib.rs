//! dutybound
