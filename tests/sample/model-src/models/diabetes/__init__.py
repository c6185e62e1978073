"""The diabetes model: how far the disease will have progressed a year later, from ten measurements of a patient."""
