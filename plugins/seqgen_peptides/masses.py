"""Masses of particles and small molecules, monoisotopic, in Da (CODATA 2018; IUPAC 2013)."""

PROTON = 1.007276467
WATER = 18.010564684
AMMONIA = 17.026549101
CARBON_MONOXIDE = 27.994914620
ISOTOPE = 1.003354835
"""The difference between carbon-13 and carbon-12: the distance of isotope peaks."""


def neutral_mass(mz: float, charge: int) -> float:
    """Mass of the uncharged molecule from its m/z."""
    return (mz - PROTON) * charge


def to_mz(mass: float, charge: int) -> float:
    """m/z of a molecule of this neutral mass with `charge` protons."""
    return mass / charge + PROTON
